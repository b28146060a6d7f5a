"""Make the pages that `make docs` builds a site of: those of this folder, and pages of real runs.

``python docs/make_site.py FOLDER [--without-gallery]`` copies the pages, takes out links to files
that the site does not have, runs quick studies and lists their pages in ``gallery.md``, with the
plotting library beside them.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

STUDIES = {
    "A training run": "",
    "What a chip is made of": "study=explain chip=repast",
    "A step of ResNet-50, planned": "study=plan workload=resnet50 chip=repast farm.chips=4",
    "From one chip to many": "study=scaling workload=resnet50",
    "Published figures beside ours": "study=validate",
    "A device from measurements": "study=device device=wan2022",
}
"""Title -> what is asked: quick ones, two minutes together."""

_OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./[^)]*\)")


def main(folder: Path, gallery: bool) -> None:
    """Copy the pages and make the gallery."""
    here = Path(__file__).parent
    shutil.copytree(here, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py"))
    for page in folder.glob("*.md"):
        page.write_text(_OUTSIDE.sub(r"\1", page.read_text()))
    if gallery:
        make_gallery(folder)


def make_gallery(folder: Path) -> None:
    """Run the studies, keep their pages and list them."""
    lines = [(folder / "gallery.md").read_text()]
    (folder / "gallery").mkdir(exist_ok=True)
    for number, (title, words) in enumerate(STUDIES.items()):
        run = folder.parent / "runs" / str(number)
        command = [sys.executable, "-m", "repast_dist.cli", *words.split(), f"hydra.run.dir={run}"]
        subprocess.run(command, check=True)
        shutil.copy(run / "report.html", folder / "gallery" / f"{number}.html")
        # Pages look for it in the folder above, as those of runs side by side do.
        for library in run.parent.glob("*.js"):
            shutil.copy(library, folder)
        asked = f"repast-dist {words}".strip()
        link = f'<a href="gallery/{number}.html">Open the page</a>'
        lines.append(f"## {title}\n\n```sh\n{asked}\n```\n\n{link}\n")
    (folder / "gallery.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), "--without-gallery" not in sys.argv)
