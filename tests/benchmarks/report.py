"""build/bench.md: one section per benchmark, replaced when it runs again."""

from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / "build" / "bench.md"


def section(title: str, text: str) -> None:
    """Print ``text`` and put it under the heading ``title``."""
    print(f"\n## {title}\n\n{text}\n")
    parts = FILE.read_text(encoding="utf-8").split("## ")[1:] if FILE.exists() else []
    kept = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts}
    kept[title] = text.strip()
    whole = "".join(f"## {heading}\n\n{body}\n\n" for heading, body in kept.items())
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(whole, encoding="utf-8")
