"""Choose what a figure wears, and draw the pieces in the right order."""

from dataclasses import dataclass, replace

import numpy as np

from fashion_hydra.wardrobe import accessories, bottoms, carried, outerwear, person, tops
from fashion_hydra.wardrobe.body import ArmPose, Body
from fashion_hydra.wardrobe.figure import Figure


@dataclass(frozen=True)
class Outfit:
    """The clothes of one figure; an empty string means that the piece is not worn."""

    top: str  # shirt, t-shirt, sweater
    bottom: str  # pants, shorts, skirt, dress, jumpsuit
    outer: str  # jacket, coat, cape
    closed: bool  # whether the outer garment is closed
    tucked: bool
    tie: bool
    belt: bool
    tights: bool
    shoes: str
    hair: str
    hat: bool
    glasses: bool
    scarf: bool
    bag: str  # hand, strap
    umbrella: bool
    feminine: bool
    side: int  # side of the umbrella; a bag is on the other side


def choose_outfit(rng: np.random.Generator) -> Outfit:
    """Choose a random outfit whose pieces go together."""
    feminine = bool(rng.random() < 0.6)

    def pick(options: dict[str, float]) -> str:
        weights = np.array(list(options.values()))
        return str(rng.choice(list(options), p=weights / weights.sum()))

    if feminine:
        bottom = pick({"dress": 0.31, "skirt": 0.27, "pants": 0.18, "shorts": 0.13, "jumpsuit": 0.11})
    else:
        bottom = pick({"pants": 0.62, "shorts": 0.26, "jumpsuit": 0.12})
    top = pick({"shirt": 0.4, "t-shirt": 0.3, "sweater": 0.3})
    if bottom == "jumpsuit":
        top = "t-shirt"
    if bottom == "dress":
        top = ""
    outer = "" if bottom == "jumpsuit" else pick({"": 0.52, "jacket": 0.2, "coat": 0.18, "cape": 0.1})
    if bottom == "shorts" and outer == "coat":
        outer = "jacket"
    closed = outer == "cape" or (outer != "" and bool(rng.random() < 0.5))
    if closed:
        # Only slivers of the top would show, and a dress with a hidden top looks like a skirt.
        top = ""
        bottom = "skirt" if bottom == "dress" else bottom
    tie = top == "shirt" and bool(rng.random() < (0.4 if feminine else 0.85))
    tucked = bottom == "skirt" or (top != "sweater" and bool(rng.random() < (0.8 if tie else 0.55)))
    visible = not closed or outer == "coat"
    bare_legs = bottom in ("skirt", "dress", "shorts")
    free = outer != "cape"
    return Outfit(
        top=top,
        bottom=bottom,
        outer=outer,
        closed=closed,
        tucked=tucked,
        tie=tie,
        belt=visible and bottom != "jumpsuit" and (tucked or not top) and bool(rng.random() < 0.75),
        tights=bare_legs and bool(rng.random() < (0.55 if feminine else 0.1)),
        shoes=pick({"sneaker": 0.36, "boot": 0.3, "pump": 0.2 * feminine, "loafer": 0.24}),
        hair=pick(
            {"long": 0.36, "bob": 0.2, "bun": 0.14, "ponytail": 0.18, "afro": 0.08}
            if feminine
            else {"short": 0.78, "bald": 0.08, "afro": 0.08, "bob": 0.04}
        ),
        hat=bool(rng.random() < 0.28),
        glasses=bool(rng.random() < 0.3),
        scarf=not tie and outer != "cape" and bool(rng.random() < 0.17),
        bag=pick({"": 0.62, "hand": 0.22, "strap": 0.16}) if free else "",
        umbrella=free and bool(rng.random() < 0.13),
        feminine=feminine,
        side=int(rng.choice([-1, 1])),
    )


def draw_figure(figure: Figure, outfit: Outfit) -> None:
    """Draw one dressed person, back to front."""
    figure.canvas.figure += 1
    if outfit.umbrella:
        carried.draw_umbrella(figure, outfit.side)
    person.draw_back_hair(figure, outfit.hair)
    person.draw_legs(figure)
    if outfit.tights:
        bottoms.draw_tights(figure)
    if outfit.shoes != "boot":
        accessories.draw_shoes(figure, outfit.shoes)
    person.draw_torso(figure)
    _draw_clothes(figure, outfit)
    if outfit.bag == "strap":
        carried.draw_bag_strap(figure, -outfit.side)
    for side in (-1, 1):
        person.draw_arm(figure, side)
        if figure.sleeve is not None:
            figure.draw_sleeve(side, figure.sleeve)
        if outfit.umbrella and side == outfit.side:
            carried.draw_umbrella_handle(figure, side)
        if outfit.bag == "hand" and side == -outfit.side:
            carried.draw_handbag(figure, side)
        person.draw_hand(figure, side)
    if outfit.outer == "cape":
        outerwear.draw_cape(figure)
    if outfit.scarf:
        accessories.draw_scarf(figure)
    person.draw_head(figure, outfit.hair)
    if outfit.glasses:
        accessories.draw_glasses(figure)
    if outfit.hat:
        accessories.draw_hat(figure)


def _draw_clothes(figure: Figure, outfit: Outfit) -> None:
    top_last = not outfit.tucked and outfit.bottom not in ("jumpsuit", "skirt")
    if not top_last:
        _draw_top(figure, outfit)
    match outfit.bottom:
        case "pants":
            bottoms.draw_pants(figure, slim=outfit.shoes == "boot")
        case "shorts":
            bottoms.draw_shorts(figure)
        case "skirt":
            bottoms.draw_skirt(figure)
        case "dress":
            bottoms.draw_dress(figure)
        case "jumpsuit":
            bottoms.draw_dungarees(figure, slim=outfit.shoes == "boot")
    if outfit.shoes == "boot":
        accessories.draw_shoes(figure, outfit.shoes)
    if top_last:
        _draw_top(figure, outfit)
    over_coat = outfit.outer == "coat" and outfit.closed
    waist = figure.body.waist_y
    if outfit.belt and not over_coat:
        bottoms.draw_belt(figure, y=waist + (0.27 if outfit.bottom in ("pants", "shorts") else 0.04))
    if outfit.outer == "jacket":
        outerwear.draw_jacket(figure, closed=outfit.closed)
    elif outfit.outer == "coat":
        outerwear.draw_coat(figure, closed=outfit.closed)
    if outfit.belt and over_coat:
        bottoms.draw_belt(figure, y=waist + 0.05)


def _draw_top(figure: Figure, outfit: Outfit) -> None:
    match outfit.top:
        case "shirt":
            tops.draw_shirt(figure, tucked=outfit.tucked, tie=outfit.tie)
        case "t-shirt":
            tops.draw_tshirt(figure, tucked=outfit.tucked)
        case "sweater":
            tops.draw_sweater(figure, tucked=outfit.tucked)


def hold(body: Body, outfit: Outfit) -> Body:
    """Return the body with its arms posed for the umbrella, bag or cape."""
    arms = list(body.arms)
    if outfit.umbrella:
        arms[outfit.side > 0] = ArmPose(0.42, 1.95)
    if outfit.bag:
        arms[outfit.side < 0] = ArmPose(0.3, -0.05)
    if outfit.outer == "cape":
        arms = [ArmPose(0.2, -0.1), ArmPose(0.2, -0.1)]
    return replace(body, arms=(arms[0], arms[1]))
