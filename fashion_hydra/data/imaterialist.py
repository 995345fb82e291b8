"""The label space of iMaterialist (Fashion) 2019: tables of 46 categories and 92 attributes."""

from dataclasses import dataclass

# (supercategory, names). Ids are consecutive across the groups, in this order. All categories have level 2.
_CATEGORY_GROUPS = (
    ("upperbody", "shirt, blouse; top, t-shirt, sweatshirt; sweater; cardigan; jacket; vest"),
    ("lowerbody", "pants; shorts; skirt"),
    ("wholebody", "coat; dress; jumpsuit; cape"),
    ("head", "glasses; hat; headband, head covering, hair accessory"),
    ("neck", "tie"),
    ("arms and hands", "glove; watch"),
    ("waist", "belt"),
    ("legs and feet", "leg warmer; tights, stockings; sock; shoe"),
    ("others", "bag, wallet; scarf; umbrella"),
    ("garment parts", "hood; collar; lapel; epaulette; sleeve; pocket; neckline"),
    ("closures", "buckle; zipper"),
    ("decorations", "applique; bead; bow; flower; fringe; ribbon; rivet; ruffle; sequin; tassel"),
)

# (supercategory, level, names). The spelling is the competition's, including "wasitline".
_ATTRIBUTE_GROUPS = (
    (
        "length",
        1,
        "above-the-hip (length); hip (length); micro (length); mini (length); above-the-knee (length); "
        "knee (length); below the knee (length); midi; maxi (length); floor (length)",
    ),
    (
        "opening type",
        1,
        "single breasted; double breasted; lace up; wrapping; zip-up; fly (opening); buckled (opening); "
        "toggled (opening); no opening",
    ),
    (
        "silhouette",
        1,
        "asymmetrical; symmetrical; peplum; circle; flare; fit and flare; trumpet; mermaid; balloon; bell; "
        "bell bottom; bootcut; peg; pencil; straight; a-line; tent; baggy; wide leg; high low; curved (fit); "
        "tight (fit); regular (fit); loose (fit); oversized",
    ),
    (
        "textile finishing, manufacturing techniques",
        1,
        "burnout; distressed; washed; embossed; frayed; printed; ruched; quilted; pleat; gathering; "
        "smocking; tiered; cutout; slit; perforated; lining; no special manufacturing technique",
    ),
    (
        "textile pattern",
        1,
        "plain (pattern); abstract; cartoon; letters, numbers; camouflage; check; dot; fair isle; floral; "
        "geometric; paisley; stripe; houndstooth (pattern); herringbone (pattern); chevron; argyle",
    ),
    ("animal", 2, "leopard; snakeskin (pattern); cheetah; peacock; zebra; giraffe"),
    ("textile pattern", 1, "toile de jouy; plant"),
    (
        "waistline",
        1,
        "empire waistline; dropped waistline; high waist; normal waist; low waist; basque (wasitline); no waistline",
    ),
)


@dataclass(frozen=True, slots=True)
class Label:
    """A category or an attribute, with the fields of label_descriptions.json."""

    id: int
    name: str
    supercategory: str
    level: int


def _number(groups: tuple[tuple[str, int, str], ...]) -> tuple[Label, ...]:
    named = [(name, group, level) for group, level, names in groups for name in names.split("; ")]
    return tuple(Label(i, name, group, level) for i, (name, group, level) in enumerate(named))


CATEGORIES = _number(tuple((group, 2, names) for group, names in _CATEGORY_GROUPS))
ATTRIBUTES = _number(_ATTRIBUTE_GROUPS)
# Only masks of the garments, categories 0-12, have attributes.
NUM_WITH_ATTRIBUTES = 13


def category_id(name: str) -> int:
    """Return the id of the category with this name, in full or up to a comma: `category_id("top")` is 1."""
    return next(c.id for c in CATEGORIES if name in (c.name, c.name.split(",")[0]))


def attribute_id(name: str) -> int:
    """Return the id of the attribute with this name, with or without its bracket: `attribute_id("hip")` is 1."""
    return next(a.id for a in ATTRIBUTES if name in (a.name, a.name.split(" (")[0]))


def label_descriptions() -> dict:
    """Return the content of Kaggle's label_descriptions.json: info, categories, attributes."""
    as_dicts = [
        [{"id": label.id, "name": label.name, "supercategory": label.supercategory, "level": label.level}
         for label in labels]
        for labels in (CATEGORIES, ATTRIBUTES)
    ]  # fmt: skip
    info = {
        "year": 2019,
        "version": "1.0",
        "description": "The label space of the 2019 FGVC^6 iMaterialist Competition - Fashion track dataset.",
        "url": "https://github.com/visipedia/imat_comp",
    }
    return {"info": info, "categories": as_dicts[0], "attributes": as_dicts[1]}
