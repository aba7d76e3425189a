"""Figures: people with a skeleton, a pose and clothes.

Lengths are fractions of the standing height. An angle of a limb is measured from straight down, positive to the
right of the picture, in radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from roiseg.sample.shape import Points, Shape, Thing, capsule, ellipse
from roiseg.sample.texture import Texture, random_color, random_texture, skin_color, solid


@dataclass(frozen=True)
class Pose:
    """Angles of the joints.

    Attributes:
        lean: Angle of the spine from upright.
        arms: (upper, lower) angle of the left and of the right arm.
        legs: (thigh, shin) angle of the left and of the right leg.
        side: Turned sideways: hips and shoulders are narrow.
    """

    lean: float
    arms: tuple[tuple[float, float], tuple[float, float]]
    legs: tuple[tuple[float, float], tuple[float, float]]
    side: bool


@dataclass(frozen=True)
class Clothes:
    """What a figure wears.

    Attributes:
        skin: Head, hands and whatever is bare.
        hair: Hair or hat.
        shirt: Upper body.
        trousers: Legs or skirt.
        shoes: Feet.
        short_sleeves: Lower arms are bare.
        shorts: Lower legs are bare.
        skirt: A skirt hides the thighs.
    """

    skin: Texture
    hair: Texture
    shirt: Texture
    trousers: Texture
    shoes: Texture
    short_sleeves: bool
    shorts: bool
    skirt: bool


@dataclass(frozen=True)
class Build:
    """Proportions of a body, as fractions of the standing height.

    Attributes:
        head: Radius of the head.
        shoulder: Half width of the shoulders.
        hip: Half width of the hips.
        limb: Half thickness of a thigh.
        long_hair: Hair reaches the shoulders.
    """

    head: float
    shoulder: float
    hip: float
    limb: float
    long_hair: bool


def random_pose(rng: np.random.Generator) -> Pose:
    """Draw a pose: standing, walking, sitting or with raised arms.

    Args:
        rng: Source of randomness.

    Returns:
        The pose.
    """
    kind = rng.choice(["stand", "walk", "sit", "raise", "wave", "akimbo"], p=[0.15, 0.25, 0.15, 0.17, 0.16, 0.12])
    facing = float(rng.choice([-1.0, 1.0]))
    lean = float(rng.normal(0, 0.08))
    jitter = rng.normal(0, 0.1, 8)
    arms = [[-0.2, -0.12], [0.2, 0.12]]
    legs = [[-0.1, -0.06], [0.1, 0.06]]
    side = False
    if kind == "walk":
        stride, swing = rng.uniform(0.3, 0.75), rng.uniform(0.3, 0.9)
        legs = [
            [facing * stride, facing * (stride - rng.uniform(0.1, 0.5))],
            [-facing * stride * 0.7, -facing * stride],
        ]
        arms = [[-facing * swing, -facing * swing * 0.4], [facing * swing, facing * (swing + rng.uniform(0.2, 1.0))]]
        side, lean = True, facing * 0.08 + lean
    elif kind == "sit":
        legs = [[facing * 1.35, facing * 0.1], [facing * 1.2, facing * 0.3]]
        arms = [[facing * 0.4, facing * 1.2], [facing * 0.7, facing * 1.4]]
        side, lean = True, -facing * 0.08 + lean
    elif kind == "raise":
        left, right = float(rng.uniform(1.6, 2.9)), float(rng.uniform(1.6, 2.9))
        arms = [[-left, -left - rng.uniform(-0.2, 0.5)], [right, right + rng.uniform(-0.2, 0.5)]]
        legs = [[-0.28, -0.2], [0.28, 0.2]]
    elif kind == "wave":
        lift = float(rng.uniform(1.2, 2.6))
        arms[int(facing > 0)] = [facing * lift, facing * (lift + rng.uniform(0.2, 0.9))]
        legs = [[-0.22, -0.1], [0.15, 0.12]]
    elif kind == "akimbo":
        arms = [[-0.85, 0.75], [0.85, -0.75]]
        legs = [[-0.25, -0.15], [0.25, 0.15]]
    angles = np.array(arms + legs).reshape(-1) + jitter
    a, b, c, d, e, f, g, h = (float(value) for value in angles)
    return Pose(lean, ((a, b), (c, d)), ((e, f), (g, h)), side)


def random_clothes(rng: np.random.Generator, height: float) -> Clothes:
    """Draw clothes.

    Args:
        rng: Source of randomness.
        height: Standing height of the figure, in pixels.

    Returns:
        The clothes.
    """
    skin = solid(skin_color(rng))
    return Clothes(
        skin=skin,
        hair=solid(tuple(0.6 * value for value in random_color(rng))),  # type: ignore[arg-type]
        shirt=random_texture(rng, height * 0.35),
        trousers=random_texture(rng, height * 0.35),
        shoes=solid(random_color(rng)),
        short_sleeves=bool(rng.random() < 0.45),
        shorts=bool(rng.random() < 0.3),
        skirt=bool(rng.random() < 0.18),
    )


def random_build(rng: np.random.Generator) -> Build:
    """Draw the proportions of a body.

    Args:
        rng: Source of randomness.

    Returns:
        The proportions.
    """
    width = float(rng.uniform(0.85, 1.25))
    return Build(
        head=float(rng.uniform(0.07, 0.09)),
        shoulder=0.125 * width,
        hip=0.09 * width,
        limb=float(rng.uniform(0.06, 0.075)) * width,
        long_hair=bool(rng.random() < 0.4),
    )


def _step(origin: Points, angle: float, length: float) -> Points:
    """The other end of a limb; (2,) float64."""
    return origin + length * np.array([np.sin(angle), np.cos(angle)])


def _arm(shoulder: Points, angles: tuple[float, float], unit: float, build: Build, clothes: Clothes, light: float) -> list[Shape]:
    """Upper arm, lower arm and hand."""
    thick = build.limb * unit * 0.72
    elbow = _step(shoulder, angles[0], 0.165 * unit)
    wrist = _step(elbow, angles[1], 0.15 * unit)
    hand = _step(wrist, angles[1], 0.02 * unit)
    sleeve = clothes.skin if clothes.short_sleeves else clothes.shirt
    return [
        Shape(ellipse(hand, (thick * 0.85, thick * 0.85)), clothes.skin, light),
        Shape(capsule(elbow, wrist, thick * 0.85, thick * 0.65), sleeve, light),
        Shape(capsule(shoulder, elbow, thick * 1.15, thick * 0.9), clothes.shirt, light),
    ]


def _leg(
    hip: Points, angles: tuple[float, float], toe: float, unit: float, build: Build, clothes: Clothes, light: float
) -> list[Shape]:
    """Thigh, shin and foot; `toe` is -1, 0 or 1: where the foot points."""
    thick = build.limb * unit
    knee = _step(hip, angles[0], 0.245 * unit)
    ankle = _step(knee, angles[1], 0.22 * unit)
    tip = ankle + np.array([toe * 0.055 * unit, 0.015 * unit])
    cover = clothes.skin if clothes.shorts or clothes.skirt else clothes.trousers
    return [
        Shape(capsule(ankle, tip, thick * 0.62, thick * 0.5), clothes.shoes, light),
        Shape(capsule(knee, ankle, thick * 0.82, thick * 0.55), cover, light),
        Shape(capsule(hip, knee, thick * 1.15, thick * 0.85), clothes.trousers, light),
    ]


def _head(neck: Points, lean: float, facing: float, unit: float, build: Build, clothes: Clothes) -> list[Shape]:
    """Neck, hair, face and hair line."""
    radius = build.head * unit
    middle = _step(neck, np.pi - lean, 0.04 * unit + radius)
    middle = middle + np.array([facing * 0.012 * unit, 0.0])
    shapes = [Shape(capsule(_step(neck, -lean, 0.02 * unit), middle, radius * 0.45, radius * 0.45), clothes.skin, 0.85)]
    if build.long_hair:
        drop = np.array([-facing * radius * 0.3, radius * 0.6])
        shapes.insert(0, Shape(ellipse(middle + drop, (radius * 1.1, radius * 1.5)), clothes.hair, 0.9))
    shapes.append(Shape(ellipse(middle, (radius * 0.82, radius * 1.05)), clothes.skin, 1.05))
    turn = np.linspace(np.pi * 1.02, np.pi * 1.98, 9)
    crown = np.stack([np.cos(turn) * 0.92, np.sin(turn) * 1.16], 1) * radius
    fringe = np.array([[0.75, -0.35], [0.0, -0.5], [-0.75, -0.35]]) * radius
    shift = np.array([-facing * radius * 0.15, 0.0])
    shapes.append(Shape(middle + shift + np.concatenate([crown, fringe]), clothes.hair))
    if facing:
        behind = middle + np.array([-facing * radius * 0.5, -radius * 0.1])
        shapes.append(Shape(ellipse(behind, (radius * 0.5, radius * 0.8)), clothes.hair))
    eyes = (-0.3, 0.3) if not facing else (facing * 0.5,)
    dark = solid((40.0, 30.0, 30.0))
    shapes += [
        Shape(ellipse(middle + np.array([x * radius, 0.05 * radius]), (radius * 0.1, radius * 0.09), count=8), dark) for x in eyes
    ]
    return shapes


def _torso(neck: Points, pelvis: Points, unit: float, build: Build, clothes: Clothes, narrow: float) -> Shape:
    """Chest and belly as one rounded polygon."""
    down = pelvis - neck
    down = down / np.linalg.norm(down)
    right = np.array([down[1], -down[0]])
    shoulder, hip = build.shoulder * unit * narrow, build.hip * unit * (1.2 if narrow < 1 else 1.1)
    rim = [(-0.35, -0.02), (-0.85, 0.0), (-1.0, 0.05)]
    left_side = [neck + right * shoulder * x + down * y * unit for x, y in rim]
    waist = pelvis + down * 0.03 * unit
    low = [waist - right * hip, waist + right * hip]
    right_side = [neck - right * shoulder * x + down * y * unit for x, y in reversed(rim)]
    return Shape(np.stack(left_side + low + right_side), clothes.shirt)


def draw_figure(foot: Points, height: float, rng: np.random.Generator, *, crowd: bool = False) -> Thing:
    """Draw a person.

    Args:
        foot: (2,) float64 point that the figure stands or sits above, image pixels.
        height: Standing height, in pixels.
        rng: Source of randomness.
        crowd: Whether the person belongs to a crowd.

    Returns:
        The figure; its lowest point lies at `foot`.
    """
    pose, clothes, build = random_pose(rng), random_clothes(rng, height), random_build(rng)
    narrow = 0.68 if pose.side else 1.0
    facing = float(np.sign(pose.legs[0][0])) if pose.side else 0.0
    pelvis = np.array([0.0, 0.0])
    neck = _step(pelvis, np.pi - pose.lean, 0.31 * height)
    spread = build.shoulder * height * narrow * 0.86
    hips = build.hip * height * 0.6 * narrow
    left_arm = _arm(neck + np.array([-spread, 0.035 * height]), pose.arms[0], height, build, clothes, 0.85)
    right_arm = _arm(neck + np.array([spread, 0.035 * height]), pose.arms[1], height, build, clothes, 1.0)
    toes = (facing, facing) if pose.side else (-0.5, 0.5)
    left_leg = _leg(pelvis + np.array([-hips, 0.0]), pose.legs[0], toes[0], height, build, clothes, 0.88)
    right_leg = _leg(pelvis + np.array([hips, 0.0]), pose.legs[1], toes[1], height, build, clothes, 1.0)
    shapes = left_arm + left_leg + right_leg
    if clothes.skirt:
        wide = build.hip * height * (2.0 if not pose.side else 2.3)
        knees = (left_leg[2].outline.mean(0) + right_leg[2].outline.mean(0)) / 2 * 1.5
        half = np.array([wide / 2, 0.0])
        shapes.append(
            Shape(
                np.stack([pelvis - half, pelvis + half, knees + 2 * half, knees - 2 * half]),
                clothes.trousers,
            )
        )
    shapes += [
        _torso(neck, pelvis, height, build, clothes, narrow),
        *right_arm,
        *_head(neck, pose.lean, facing, height, build, clothes),
    ]
    if rng.random() < 0.5:
        # A handed skeleton would always have its right arm in front.
        flip = np.array([-1.0, 1.0])
        shapes = [Shape(shape.outline * flip, shape.texture, shape.light) for shape in shapes]
    low = max(float(shape.outline[:, 1].max()) for shape in shapes)
    move = foot - np.array([0.0, low])
    moved = tuple(Shape(shape.outline + move, shape.texture, shape.light) for shape in shapes)
    return Thing("person", moved, float(foot[1]), crowd=crowd)
