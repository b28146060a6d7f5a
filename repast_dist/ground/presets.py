"""The YAML files of ``conf/``: where they are, and which options each group has."""

from pathlib import Path


def conf_dir() -> Path:
    """Return the folder of the YAML groups: inside the installed package, or the repository's."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def conf_state() -> int:
    """Return a number that is another one when a YAML file has changed."""
    states = ((path, path.stat()) for path in conf_dir().glob("**/*.yaml"))
    return hash(tuple((str(path), s.st_mtime_ns, s.st_size, s.st_ino) for path, s in states))


def setting_groups() -> dict[str, list[str]]:
    """Return every configuration group and its options."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in sorted(conf_dir().iterdir())
        if folder.is_dir() and any(folder.glob("*.yaml"))
    }
