"""The walk through the layers of the backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

from roiseg.sample.topology import BOX_BINS, CLASSES, TABLE, ConvSpec, Interpreter, Layer, T, scaled


class Walker(Generic[T]):
    """Goes through the table of layers with an interpreter.

    Args:
        interpreter: Who counts, runs or writes the layers.
        width: Factor on all channels.
    """

    def __init__(self, interpreter: Interpreter[T], width: float) -> None:
        self._do = interpreter
        self._width = width
        self._kept: dict[int, list[T]] = {}
        self._inner: dict[int, T] = {}

    def run(self, image: T, last: int = TABLE[-1][0]) -> tuple[dict[int, T], T]:
        """Go through the layers.

        Args:
            image: The network's input.
            last: Number of the last layer to run.

        Returns:
            The inner concatenations of the ELAN blocks and the outputs of the concat layers by layer number, and
            the output of the last layer.
        """
        self._kept, self._inner = {0: [image]}, {}
        for layer in TABLE:
            if layer[0] > last:
                break
            self._kept[layer[0]] = self._layer(layer)
        return self._inner, self._kept[last][0]

    def _layer(self, layer: Layer) -> list[T]:
        number, sources, kind, arguments = layer
        name = f"model.{number}"
        if kind == "cbfuse":
            return [self._cbfuse(name, sources, arguments[0])]
        values = [self._kept[source][0] for source in sources]
        if kind == "cblinear":
            return self._cblinear(name, values[0], arguments)
        if kind == "concat":
            self._inner[number] = self._do.concat(f"{name}.Concat", values)
            return [self._inner[number]]
        if kind == "detect":
            return [self._detect(name, values)]
        if kind == "upsample":
            return [self._do.upsample(f"{name}.Resize", values[0], arguments[0])]
        widths = tuple(scaled(channels, self._width) for channels in arguments)
        if kind == "elan":
            return [self._elan(number, values[0], widths)]
        if kind == "adown":
            return [self._adown(name, values[0], widths[0])]
        if kind == "spp":
            return [self._spp(name, values[0], widths)]
        return [self._conv(name, values[0], widths[0], 3, stride=2)]

    def _conv(self, name: str, value: T, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> T:
        """Convolution, batch norm, SiLU."""
        spec = ConvSpec(name, self._do.channels(value), outputs, kernel, stride, groups, normed=True)
        return self._do.conv(value, spec)

    def _linear(self, name: str, value: T, outputs: int, groups: int = 1) -> T:
        """1x1 convolution with bias and nothing after it."""
        return self._do.conv(value, ConvSpec(name, self._do.channels(value), outputs, 1, 1, groups, normed=False))

    def _elan(self, number: int, value: T, widths: tuple[int, ...]) -> T:
        """RepNCSPELAN4 with two bottlenecks in each of two branches."""
        name = f"model.{number}"
        outputs, middle, branch = widths
        halves = self._do.split(f"{name}.Split", self._conv(f"{name}.cv1", value, middle, 1), [middle // 2] * 2)
        for part in ("cv2", "cv3"):
            deeper = self._csp(f"{name}.{part}.0", halves[-1], branch)
            halves.append(self._conv(f"{name}.{part}.1", deeper, branch, 3))
        self._inner[number] = self._do.concat(f"{name}.Concat", halves)
        return self._conv(f"{name}.cv4", self._inner[number], outputs, 1)

    def _csp(self, name: str, value: T, outputs: int) -> T:
        """RepNCSP: two bottlenecks beside a shortcut."""
        hidden = outputs // 2
        deep = self._conv(f"{name}.cv1", value, hidden, 1)
        for step in range(2):
            inner = self._conv(f"{name}.m.{step}.cv1", deep, hidden, 3)
            inner = self._conv(f"{name}.m.{step}.cv2", inner, hidden, 3)
            deep = self._do.add(f"{name}.m.{step}.Add", [deep, inner])
        both = self._do.concat(f"{name}.Concat", [deep, self._conv(f"{name}.cv2", value, hidden, 1)])
        return self._conv(f"{name}.cv3", both, outputs, 1)

    def _adown(self, name: str, value: T, outputs: int) -> T:
        """Halves the map: one half of the channels by a convolution, the other by a maximum."""
        half = self._do.channels(value) // 2
        smooth = self._do.avg_pool(f"{name}.AveragePool", value)
        left, right = self._do.split(f"{name}.Split", smooth, [half, self._do.channels(value) - half])
        left = self._conv(f"{name}.cv1", left, outputs // 2, 3, stride=2)
        right = self._conv(f"{name}.cv2", self._do.max_pool(f"{name}.MaxPool", right, 3, 2), outputs // 2, 1)
        return self._do.concat(f"{name}.Concat", [left, right])

    def _cblinear(self, name: str, value: T, arguments: tuple[int, ...]) -> list[T]:
        """One 1x1 convolution whose output is cut into pieces, for the second column's stages."""
        sizes = [scaled(channels, self._width) for channels in arguments]
        return self._do.split(f"{name}.Split", self._linear(f"{name}.conv", value, sum(sizes)), sizes)

    def _cbfuse(self, name: str, sources: Sequence[int], piece: int) -> T:
        """Adds piece `piece` of each CBLinear, enlarged, to the last source."""
        # Layers 10 to 14 lie at strides 2, 4, 8, 16, 32; piece p belongs to the stage at stride 2 ** (p + 1).
        parts = []
        for source in sources[:-1]:
            factor = 2 ** (source - 10 - piece)
            value = self._kept[source][piece]
            parts.append(self._do.upsample(f"{name}.Resize_{source}", value, factor) if factor > 1 else value)
        return self._do.add(f"{name}.Sum", [*parts, self._kept[sources[-1]][0]])

    def _spp(self, name: str, value: T, widths: tuple[int, ...]) -> T:
        """SPPELAN: maxima over growing windows."""
        pyramid = [self._conv(f"{name}.cv1", value, widths[1], 1)]
        for step in (2, 3, 4):
            pyramid.append(self._do.max_pool(f"{name}.cv{step}.MaxPool", pyramid[-1], 5, 1))
        return self._conv(f"{name}.cv5", self._do.concat(f"{name}.Concat", pyramid), widths[0], 1)

    def _detect(self, name: str, values: Sequence[T]) -> T:
        """Box and class branches of the detection head; raw: box bins and class logits, nothing decoded."""
        first = scaled(256, self._width)
        box, classes = max(first // 4, scaled(4 * BOX_BINS, self._width)), max(first, scaled(CLASSES, self._width))
        raw = []
        for level, value in enumerate(values):
            boxes = self._conv(f"{name}.cv2.{level}.0", value, box, 3)
            boxes = self._conv(f"{name}.cv2.{level}.1", boxes, box, 3, groups=4)
            boxes = self._linear(f"{name}.cv2.{level}.2", boxes, 4 * BOX_BINS, groups=4)
            scores = self._conv(f"{name}.cv3.{level}.0", value, classes, 3)
            scores = self._conv(f"{name}.cv3.{level}.1", scores, classes, 3)
            scores = self._linear(f"{name}.cv3.{level}.2", scores, CLASSES)
            raw.append(self._do.concat(f"{name}.Concat_{level}", [boxes, scores]))
        return self._do.flatten(f"{name}.Flatten", raw)
