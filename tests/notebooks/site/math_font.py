"""Create math.woff2, a subset of STIX Math 1.1.1 (SIL Open Font License, OFL.txt).

    apt-get download fonts-stix && dpkg-deb -x fonts-stix_*.deb .
    pip install fonttools brotli
    python math_font.py usr/share/fonts/opentype/stix-word/STIXMath-Regular.otf math.woff2

The subset keeps the table MATH, with which browsers stretch brackets and place indices. It has
another name, because the licence requires that of modified fonts, and keeps copyright and licence.
"""

import sys

from fontTools.subset import Options, Subsetter, load_font, parse_unicodes, save_font

LATIN = "20-7E,A0,A8,AC,AF,B0-B4,B7,D7,F7,2C6,2C7,2DC,300-304,307,308,30C,338,2013-2026"
GREEK = "391-3A9,3B1-3C9,3D1,3D5,3D6,3F0,3F1,3F5"
SIGNS = (
    "2032-2034,203E,2061-2064,20D6,20D7,2102,210E,2112,2113,2115,211D,2124,2190-2195,21A6,21D0-21D4,"
    "2200-2213,2215-222C,2236,223C,2243,2245,2248,2254,2260,2261,2264,2265,226A,226B,227A,227B,"
    "2282-2287,2295-2299,22A4,22A5,22C0-22C6,22EE-22F1,2308-230B,23B4,23B5,23DC-23DF,27E8,27E9"
)
ALPHABETS = "1D400-1D49B,1D4AA-1D4AD,1D538-1D550,1D6A4-1D71B"  # bold, italic, script, double
NAME = {1: "Lesson Math", 3: "Lesson Math", 4: "Lesson Math", 6: "LessonMath"}


def main(source: str, target: str) -> None:
    options = Options(flavor="woff2", layout_features=["*"], hinting=False, drop_tables=["FFTM"])
    options.name_IDs = [0, 1, 2, 3, 4, 6, 13, 14]  # copyright, names, licence
    font = load_font(source, options)
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=parse_unicodes(",".join([LATIN, GREEK, SIGNS, ALPHABETS])))
    subsetter.subset(font)
    for record in font["name"].names:
        record.string = NAME.get(record.nameID, str(record))
    outlines = font["CFF "].cff
    outlines.fontNames = [NAME[6]]
    outlines.topDictIndex[0].FullName = outlines.topDictIndex[0].FamilyName = NAME[1]
    save_font(font, target, options)


if __name__ == "__main__":
    main(*sys.argv[1:])
