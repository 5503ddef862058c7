"use strict";
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
