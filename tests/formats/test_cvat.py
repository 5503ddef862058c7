"""CVAT's XML: what is drawn is what is read, entities are not expanded, and each fault names its image."""

from __future__ import annotations

import tempfile
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings

from ofa_pose.formats import cvat
from ofa_pose.formats.annotated import Given
from ofa_pose.utils.errors import InputError
from tests.formats.scenes import JOINTS, LIMBS, Scene, assert_same, box_of, scene_lists, write_images


def meta() -> str:
    """The task's labels: a skeleton with its drawing, and its joints."""
    ids = {name: number for number, name in enumerate(JOINTS, start=1)}
    lines = "".join(
        f'<line data-type="edge" data-node-from="{ids[a]}" data-node-to="{ids[b]}"></line>' for a, b in LIMBS
    )
    circles = "".join(
        f'<circle data-type="element node" data-node-id="{i}" data-label-name="{n}"/>' for n, i in ids.items()
    )
    joints = "".join(f"<label><name>{n}</name><type>points</type><parent>fish</parent></label>" for n in JOINTS)
    skeleton = f"<label><name>fish</name><type>skeleton</type><svg>{escape(lines + circles)}</svg></label>"
    return f"<meta><task><labels>{skeleton}{joints}</labels></task></meta>"


def document(scenes: list[Scene], subsets: bool = False) -> str:
    """The scenes as CVAT for images 1.1."""
    images = []
    for number, scene in enumerate(scenes):
        shapes = []
        for person in scene.people:
            points = []
            for name in reversed(JOINTS):
                x, y, flag = person.get(name, (1.0, 1.0, 0))
                state = f'outside="{int(flag == 0)}" occluded="{int(flag == 1)}"'
                points.append(f'<points label="{name}" source="manual" {state} points="{x!r},{y!r}"></points>')
            shapes.append(f'<skeleton label="fish" source="manual" z_order="0">{"".join(points)}</skeleton>')
        subset = f' subset="part{number}"' if subsets else ""
        size = f'width="{scene.width}" height="{scene.height}"'
        images.append(f'<image id="{number}" name={quoteattr(scene.name)}{subset} {size}>{"".join(shapes)}</image>')
    head = '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>'
    return f"{head}{meta()}{''.join(images)}</annotations>"


def write(folder: Path, text: str) -> Given:
    """annotations.xml in a folder."""
    path = folder / "annotations.xml"
    path.write_text(text)
    return Given(path)


@settings(max_examples=40, deadline=None)
@given(scene_lists())
def test_skeletons_are_read_as_drawn(scenes: list[Scene]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        named = write(Path(folder), document(scenes))
        assert cvat.FORMAT.accepts(named) and cvat.FORMAT.accepts(Given(Path(folder)))
        (part,) = cvat.FORMAT.read(named)
    assert_same(part, scenes)
    category = part.value["categories"][0]
    assert category["name"] == "fish" and category["keypoints"] == list(JOINTS) and "flip_pairs" not in category
    assert category["skeleton"] == [[1, 2], [1, 3], [1, 4]]
    assert not part.losses and "not there" in part.notes[0]


@settings(max_examples=40, deadline=None)
@given(scene_lists())
def test_points_and_boxes_of_a_group_are_a_person(scenes: list[Scene]) -> None:
    def shapes(scene: Scene) -> str:
        text = ""
        for group, person in enumerate(scene.people, start=1):
            x, y, w, h = box_of(person)
            text += f'<box label="fish" xtl="{x!r}" ytl="{y!r}" xbr="{x + w!r}" ybr="{y + h!r}" group_id="{group}"/>'
            for name, (px, py, flag) in person.items():
                text += f'<points label="{name}" occluded="{2 - flag}" points="{px!r},{py!r}" group_id="{group}"/>'
        return f'<image name="{scene.name}" width="{scene.width}" height="{scene.height}">{text}</image>'

    with tempfile.TemporaryDirectory() as folder:
        text = f"<annotations>{''.join(map(shapes, scenes))}</annotations>"
        (part,) = cvat.FORMAT.read(write(Path(folder), text))
    assert_same(part, scenes)


def test_subsets_are_splits(tmp_path: Path) -> None:
    scenes = [Scene(f"{n}.png", 50, 40, ({"head": (1.0, 2.0, 2)},)) for n in range(2)]
    for scene, subset in zip(scenes, ("part0", "part1"), strict=True):
        write_images(tmp_path / "images" / subset, [scene])
    parts = cvat.FORMAT.read(write(tmp_path, document(scenes, subsets=True)))
    assert [part.split for part in parts] == ["part0", "part1"] and not any(part.notes for part in parts)
    assert [part.origins for part in parts] == [(tmp_path / "images" / f"part{n}" / f"{n}.png",) for n in range(2)]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    text = document([Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2)},))])
    more = (
        '<box label="car" xtl="1" ytl="1" xbr="2" ybr="2"/><polygon label="car" points="1,1;2,2;3,3"/>'
        '<skeleton label="dog"><points label="nose" points="1,1"/></skeleton><tag label="night"/>'
        '<skeleton label="fish"><points label="head" points="1,1"><attribute name="a">b</attribute></points>'
        '<points label="head" points="2,2"/></skeleton>'
    )
    (part,) = cvat.FORMAT.read(write(tmp_path, text.replace("</image>", f"{more}</image>")))
    assert part.losses == {"attributes": 1, "other_categories": 1, "other_shapes": 2, "repeated_joints": 1}


FAULTS = [
    (("<annotations>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations>"), "declares a document type"),
    (("<annotations>", "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><annotations>"), "declares a document type"),
    (("</annotations>", ""), r"annotations.xml:1:\d+: is not valid XML"),
    (('width="50"', 'width="wide"'), "image a.png: width is 'wide', not a number"),
    (('width="50"', 'width="0"'), "image a.png: its width and height are 0.0 and 40.0"),
    (('points="1.0,2.0"', 'points="1.0"'), "image a.png: skeleton at place 0: joint head has the points '1.0'"),
    (('points="1.0,2.0"', 'points="1.0,nan"'), "joint head is 'nan', not a number"),
    (('name="a.png"', 'name="../../a.png"'), "image ../../a.png: its image '../../a.png' leads out of"),
    (('name="a.png"', 'name=""'), "image 0: has no name"),
    (("<image", "<track id='1'/><image"), "holds tracks"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_faults(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = document([Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2)},))])
    assert change[0] in text
    with pytest.raises(InputError, match=message) as caught:
        cvat.FORMAT.read(write(tmp_path, text.replace(change[0], change[1], 1)))
    assert str(tmp_path / "annotations.xml") in str(caught.value)


def test_entities_in_the_drawing_are_refused_too(tmp_path: Path) -> None:
    text = document([Scene("a.png", 50, 40, ({"head": (1.0, 2.0, 2)},))])
    drawing = escape("<!DOCTYPE svg [<!ENTITY a 'b'>]><svg>&a;</svg>")
    start, end = text.index("<svg>") + 5, text.index("</svg>")
    with pytest.raises(InputError, match="the skeleton's svg"):
        cvat.FORMAT.read(write(tmp_path, text[:start] + drawing + text[end:]))
