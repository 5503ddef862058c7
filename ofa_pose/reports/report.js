"use strict";
const seen = new ResizeObserver((entries) => { // a box says where it holds more than it shows
  for (const { target } of entries) {
    const box = target.closest(".wide");
    box.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
  }
});
for (const box of document.querySelectorAll(".wide")) for (const one of [box, ...box.children]) seen.observe(one);
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentNode.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch { // a page of a file may not: the text is marked, to be copied by hand
      getSelection().selectAllChildren(code);
      button.textContent = "marked";
    }
  });
}
