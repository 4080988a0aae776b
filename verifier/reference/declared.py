"""A family that is declared: it says where its model's parts are, and the rest is read off Hugging Face's model.

A family derives from `DeclaredFamily` and sets its constants. It has methods only where its model departs: where a
block's parts depend on the config, say. Imports no torch: that waits until a model is looked at.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from verifier.canonical import COMPONENTS, Point, points, template_of
from verifier.errors import VerifierError
from verifier.family import Config, PointSource, QKVRows, Taps
from verifier.output.text import nearest
from verifier.reference.declaration_errors import BLOCKS, require_block, require_components, require_words
from verifier.reference.point_sources import line_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from verifier.adapter import Edit
    from verifier.reference.row_probing import AttentionRows
    from verifier.reference.taps import TapRecorder

_MOST_KEPT = 256  # configs whose rows are kept
# Where HF's configs have the activation.
_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation")
_LAYERS, _HEADS, _KV_HEADS = "num_hidden_layers", "num_attention_heads", "num_key_value_heads"
_CONTEXT = "max_position_embeddings"
_HEAD_NORMS = ("attn.q_norm", "attn.k_norm")


class DeclaredFamily:
    """The reference side of a model family, by its declaration.

    A path may end in `@n`: the module's run number n, counted from 0, in a forward in which it runs several times.

    Attributes:
        name: the name on the command line.
        architecture: HF's class name, `FalconForCausalLM`.
        reference_attention: the attention implementation of HF that is right; the family's module says why.
        attentions: every attention implementation of HF that runs here, including the reference.
        COMPONENTS: by canonical component outside the blocks, the path of HF's module, and that of the list of blocks
            by `blocks`.
        BLOCK: by canonical component in a block (`attn.q`, `ln2`), the path in HF's block. Of a block's fused
            projection the name is `attn.qkv`.
        POSITIONS: `rotary`, `alibi`, `standard` for learned ones, or `none`.
        FIELDS: the names in HF's config of `num_hidden_layers`, `num_attention_heads`, `num_key_value_heads` and
            `max_position_embeddings`, where they are others.
        FLAGS: the values of every flag, the plainest first; the matrix is their product.
        DIMS: the tiny dims of every flag combination.
        CORNERS: configs beside the matrix, by name: what differs from `DIMS` and HF's defaults.
        PRESETS: configs of published checkpoints, by name.
        DROPOUTS: what to set in a config so that every dropout acts.
        SHAPES: other shapes, by the values of the axis `dims`: with how many key/value heads where they are neither
            one nor all, and the fields that change.
        FUZZED: the values of further fields for `verifier fuzz`, the plainest first.
        NORM_LINES: how a script reads a norm's `hook_scale` and `hook_normalized`; see `point_sources`.
    """

    name: str
    architecture: str
    reference_attention = "sdpa"
    attentions: tuple[str, ...] = ("sdpa", "eager")
    COMPONENTS: ClassVar[Mapping[str, str]]
    BLOCK: ClassVar[Mapping[str, str]]
    POSITIONS = "rotary"
    FIELDS: ClassVar[Mapping[str, str]] = {}
    FLAGS: ClassVar[Mapping[str, Sequence[Any]]] = {}
    DIMS: ClassVar[Config] = {}
    CORNERS: ClassVar[Mapping[str, Config]] = {}
    PRESETS: ClassVar[Mapping[str, Config]] = {}
    DROPOUTS: ClassVar[Config] = {}
    SHAPES: ClassVar[Mapping[str, tuple[int, Config]]] = {}
    FUZZED: ClassVar[Mapping[str, Sequence[Any]]] = {}
    NORM_LINES: ClassVar[Mapping[str, str]] = {}

    def __init__(self) -> None:
        """Make the family.

        Raises:
            UsageError: a component that it declares is no canonical one, or its blocks are nowhere.
        """
        of = type(self).__name__
        require_components(of, self.COMPONENTS)
        require_block(of, self.BLOCK)
        require_words(of, positions=self.POSITIONS)
        self._rows: WeakKeyDictionary[nn.Module, AttentionRows] = WeakKeyDictionary()
        self._rows_of_configs: dict[str, Mapping[str, AttentionRows]] = {}

    # --- where a model may depart from its declaration

    def block(self, config: Config, layer: int) -> Mapping[str, str]:
        """Give the path in HF's block of each canonical component in a block. Imports no torch.

        Args:
            config: the flags and dims of the model.
            layer: the number of the block, from 0.
        """
        return self.BLOCK

    def positions(self, config: Config) -> str:
        """Say what tells a model positions, by the words of `POSITIONS`. Imports no torch."""
        return self.POSITIONS

    def is_sequential(self, config: Config) -> bool:
        """Whether the MLP reads the stream to which the attention has written. Imports no torch."""
        return True

    def norms_rotated(self, config: Config) -> bool:
        """Whether norms on queries and keys stand after rotary. Imports no torch."""
        return False

    def writers(self, config: Config) -> Mapping[str, str]:
        """Name the components whose outputs `attn` and `mlp` add to the stream. Imports no torch.

        They are the norms after attention and MLP where there are such, else attention and MLP; and the MLP's output
        projection where HF has no module of the MLP. One that is left out adds nothing that is any module's output,
        and has no `hook_attn_out` or `hook_mlp_out`.
        """
        return {}

    def multipliers(self, config: Config) -> Mapping[str, float]:
        """Give what the model multiplies a module's output by before it adds it, by the point's template.

        Imports no torch.
        """
        return {}

    # --- what is declared

    def flags(self) -> Mapping[str, Sequence[Any]]:
        """List the values of every flag, the plainest first."""
        return self.FLAGS

    def dims(self) -> Config:
        """Give the tiny dims of every flag combination in the matrix."""
        return self.DIMS

    def corners(self) -> Mapping[str, Config]:
        """Give named configs of other shapes, published traps, and configs that HF refuses."""
        return self.CORNERS

    def presets(self) -> Mapping[str, Config]:
        """Give the configs of published checkpoints."""
        return self.PRESETS

    def dropouts(self) -> Config:
        """Turn on every dropout of the model."""
        return self.DROPOUTS

    def longest_text(self, config: Config) -> int | None:
        """Give how many positions a model has learned; None if it learns none."""
        return self._read(config, _CONTEXT) if self.positions(config) == "standard" else None

    def fuzzed(self) -> Mapping[str, Sequence[Any]]:
        """List what varies beside the flags."""
        return self.FUZZED

    def fuzzed_config(self, chosen: Mapping[str, Any]) -> Config:
        """Make the config of one value for each flag and field."""
        return dict(chosen)

    def reshaped(self, config: Config, dims: str) -> dict[str, Any] | None:
        """Give a config other shapes, and KV heads that stand to the new heads as the old ones did to the old.

        Args:
            config: the flags and dims.
            dims: `even`, `many` or `wide`.

        Returns:
            The config; None if the family has no such shapes.
        """
        if dims not in self.SHAPES:
            return None
        groups, shape = self.SHAPES[dims]
        heads, kv_heads = (self._read(config, field) for field in (_HEADS, _KV_HEADS))
        found = {**config, **shape}
        if kv_heads is not None and kv_heads > 1:
            found[self.FIELDS.get(_KV_HEADS, _KV_HEADS)] = self._read(shape, _HEADS) if kv_heads == heads else groups
        return found

    def _read(self, config: Config, field: str) -> Any:
        """Read a field of every model, under the name that all of HF's configs take or under this one's own.

        Raises:
            VerifierError: the config has none of the two.
        """
        own = self.FIELDS.get(field, field)
        if field not in config and own not in config and field != _KV_HEADS:
            raise VerifierError(
                f"{self.name}: the config has no {own!r}; DIMS must say it, and FIELDS how HF's config calls {field!r}"
            )
        return config.get(field, config.get(own))

    # --- what follows from it

    def build(self, config: Config, **options: Any) -> PreTrainedModel:
        """Build HF's model with random weights or a checkpoint's; the options are those of `Family.build`."""
        import transformers

        from verifier.reference.models import build

        model_class = getattr(transformers, self.architecture, None)
        if model_class is None:
            raise VerifierError(
                f"{self.name}: transformers has no {self.architecture!r}{nearest(self.architecture, dir(transformers))}"
            )
        return build(model_class, model_class.config_class, config, **options)

    def points(self, config: Config) -> Sequence[Point]:
        """List the hook points of a model of this config in causal order."""
        around = ["hook_embed", *_norm_points(self.COMPONENTS, "embed_ln", "ln_final")]
        if "pos_embed" in self.COMPONENTS:
            around.append("hook_pos_embed")
        layers = range(self._read(config, _LAYERS))
        return points(around, by_layer=[self._points_in(config, self.block(config, layer)) for layer in layers])

    def _points_in(self, config: Config, block: Mapping[str, str]) -> list[str]:
        writes = self._writers(config, block)
        found = ["hook_resid_pre", "hook_resid_post"]
        if "attn" in block:
            found += [f"attn.hook_{name}" for name in ("q", "k", "v", "attn_scores", "pattern", "z", "result")]
            if self.positions(config) == "rotary":
                found += ["attn.hook_rot_q", "attn.hook_rot_k"]
        found += _norm_points(block, "ln1", "ln1_post", "ln2", "ln2_post", *_HEAD_NORMS)
        if not self.norms_rotated(config):
            found += [f"attn.hook_{letter}_normed" for letter in "qk" if f"attn.{letter}_norm" in block]
        found += [f"hook_{name}_out" for name in writes]
        if self._reads_mid(config, block):
            found.append("hook_resid_mid")
        if "mlp.in" in block:
            found += ["mlp.hook_pre", "mlp.hook_post"]
        if "mlp.gate" in block:
            found.append("mlp.hook_pre_linear")
        return [f"blocks.{{i}}.{name}" for name in found]

    def _reads_mid(self, config: Config, block: Mapping[str, str]) -> str | None:
        """Name the component that reads the stream between attention and MLP: the MLP's norm, or the MLP itself."""
        readers = ("ln2", "mlp") if self.is_sequential(config) else ()
        return next((reader for reader in readers if reader in block), None)

    def _writers(self, config: Config, block: Mapping[str, str]) -> dict[str, str]:
        usual = {"attn": ("ln1_post", "attn"), "mlp": ("ln2_post", "mlp", "mlp.out")}
        own = self.writers(config)
        require_words(type(self).__name__, positions=self.positions(config), writers=own)
        found = {name: next(filter(block.__contains__, places), name) for name, places in usual.items()} | dict(own)
        return {name: writer for name, writer in found.items() if writer in block}

    @contextlib.contextmanager
    def taps(
        self, model: Any, *, names: Collection[str] | None = None, edits: Mapping[str, Edit] | None = None
    ) -> Iterator[Taps]:
        """Read and edit the activations of an untouched model.

        Args:
            model: HF's model.
            names: the canonical points to read; all of the config's if not given.
            edits: by canonical point, the edit of its value.

        Returns:
            A context that gives the taps, which show the activations of a forward inside it.
        """
        from verifier.reference.taps import TapRecorder

        config = vars(model.config)  # `to_dict` would copy it in each run
        chosen = [point.name for point in self.points(config)] if names is None else names
        with TapRecorder(chosen, edits or {}) as taps:
            self._place_taps(model, taps, config)
            yield taps

    def _place_taps(self, model: Any, taps: TapRecorder, config: Config) -> None:
        from verifier.reference import taps as at
        from verifier.reference.attention_taps import AttentionTaps

        modules, factors = self._modules(model), self.multipliers(config)
        require_words(type(self).__name__, positions=self.positions(config), multipliers=factors)
        # Before what reads their outputs: a norm after the attention gives what the attention adds.
        for name, (module, run) in modules.items():
            if not name.endswith(_HEAD_NORMS):
                at.tap_norm(taps, name, module, run=run)

        def output(name: str, component: str) -> None:
            module, run = modules[component]
            at.tap_output(taps, name, module, factor=factors.get(template_of(name), 1.0), run=run)

        output("hook_embed", "embed_ln" if "embed_ln" in modules else "embed")
        if "pos_embed" in modules:
            output("hook_pos_embed", "pos_embed")
        attentions = {}
        for layer in range(self._read(config, _LAYERS)):
            here = f"{BLOCKS}.{layer}"
            block, run = modules[here]
            names = self.block(config, layer)
            at.tap_block(taps, here, block, run=run)
            if "attn" in names:
                read = self._read_attention(model, layer)
                rows = read.rows
                attentions[f"{here}.attn"] = (modules[f"{here}.attn"][0], rows.reads)
                at.tap_projections(taps, f"{here}.attn", model, rows, run=run)
                for letter, heads in (("q", rows.q), ("k", rows.k)):
                    name = f"{here}.attn.{letter}_norm"
                    if name in modules:
                        norm, norm_run = modules[name]
                        axes = at.HeadAxes(heads=len(heads.rows), first=letter in read.heads_first)
                        at.tap_norm(taps, name, norm, run=norm_run, axes=axes)
                        if not self.norms_rotated(config):
                            normed = f"{here}.attn.hook_{letter}_normed"
                            at.tap_output(taps, normed, norm, run=norm_run, axes=axes)
                out, out_run = modules[f"{here}.attn.o"]
                at.tap_output_projection(taps, f"{here}.attn", out, n_heads=len(rows.reads), run=out_run)
            for name, writer in self._writers(config, names).items():
                output(f"{here}.hook_{name}_out", f"{here}.{writer}")
            if reader := self._reads_mid(config, names):
                module = modules[f"{here}.{reader}"][0]
                at.tap_residual_mid(taps, f"{here}.hook_resid_mid", block=block, reader=module, run=run)
            if "mlp.in" in names:
                output(f"{here}.mlp.hook_pre", f"{here}.mlp.{'gate' if 'mlp.gate' in names else 'in'}")
                if "mlp.gate" in names:
                    output(f"{here}.mlp.hook_pre_linear", f"{here}.mlp.in")
                hidden, hidden_run = modules[f"{here}.mlp.out"]
                at.tap_input(taps, f"{here}.mlp.hook_post", hidden, run=hidden_run)
            at.tap_output(taps, f"{here}.hook_resid_post", block, run=run)
        AttentionTaps(taps, attentions)

    def components(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Find HF's module for each canonical component.

        Raises:
            VerifierError: the family declares a component where HF's model has no module.
        """
        known = set(COMPONENTS)
        return {name: one for name, (one, _) in self._modules(model).items() if template_of(name) in known}

    def _modules(self, model: Any) -> dict[str, tuple[nn.Module, int | None]]:
        """Find the module of everything that is declared, and which of its runs is meant."""
        config = vars(model.config)
        found = {name: self._module(model, name, path) for name, path in self.COMPONENTS.items() if name != BLOCKS}
        blocks: Any = self._module(model, BLOCKS, self.COMPONENTS[BLOCKS])[0]
        if not hasattr(blocks, "__len__"):
            raise VerifierError(
                f"{self.name} declares blocks at {self.COMPONENTS[BLOCKS]!r}, which is no list of modules"
            )
        runs: dict[nn.Module, int] = {}
        shared = len(set(blocks)) < len(blocks)
        for layer, block in enumerate(blocks):
            here = f"{BLOCKS}.{layer}"
            run = runs[block] = runs.get(block, -1) + 1
            found[here] = block, run if shared else None
            declared = self.block(config, layer)
            require_block(type(self).__name__, declared)
            for name, path in declared.items():
                module, own = self._module(block, f"{here}.{name}", path)
                found[f"{here}.{name}"] = module, run if shared else own
        return found

    def _module(self, of: nn.Module, name: str, path: str) -> tuple[nn.Module, int | None]:
        path, _, run = path.partition("@")
        found, there = of, list[str]()
        for part in path.split(".") if path else ():
            children = dict(found.named_children())
            if part not in children:
                where = f"{type(found).__name__} at {'.'.join(there)!r}" if there else type(found).__name__
                raise VerifierError(
                    f"{self.name} declares {name} at {path!r}, where HF's model has no module"
                    f"{nearest(part, [*children])}; {where} has {', '.join(children) or 'no modules'}"
                )
            found = children[part]
            there.append(part)
        return found, int(run) if run else None

    def qkv_rows(self, model: nn.Module, layer: int) -> QKVRows:
        """Find which row is which head's query, key or value, by running HF's model on row numbers.

        Args:
            model: HF's model.
            layer: the number of the block, from 0.
        """
        return self._read_attention(model, layer).rows

    def _read_attention(self, model: nn.Module, layer: int) -> AttentionRows:
        """Read what models of one config have in common once, because every run with taps needs it."""
        any_model: Any = model
        attention = self._attention(any_model, layer)
        if attention not in self._rows:
            fields = vars(any_model.config).items()
            key = repr(sorted((name, one) for name, one in fields if not name.startswith("_") and name != "dtype"))
            if key not in self._rows_of_configs:
                if len(self._rows_of_configs) >= _MOST_KEPT:
                    self._rows_of_configs.pop(next(iter(self._rows_of_configs)))
                self._rows_of_configs[key] = self._read_rows(any_model)
            self._rows[attention] = self._rows_of_configs[key][f"{BLOCKS}.{layer}"]
        return self._rows[attention]

    def _attention(self, model: Any, layer: int) -> nn.Module:
        blocks: Any = self._module(model, BLOCKS, self.COMPONENTS[BLOCKS])[0]
        path = self.block(vars(model.config), layer)["attn"]
        return self._module(blocks[layer], f"{BLOCKS}.{layer}.attn", path)[0]

    def _read_rows(self, model: Any) -> Mapping[str, AttentionRows]:
        from verifier.reference.row_probing import AttentionParts, read_rows

        modules, layers = self._modules(model), dict[str, AttentionParts]()
        for layer in range(len(model.get_submodule(self.COMPONENTS[BLOCKS]))):
            block, here = self.block(vars(model.config), layer), f"{BLOCKS}.{layer}"
            if "attn" not in block:
                continue
            letters = ("qkv",) if "attn.qkv" in block else ("q", "k", "v")
            layers[here] = AttentionParts(
                attention=modules[f"{here}.attn"][0],
                projections={one: f"{self.COMPONENTS[BLOCKS]}.{layer}.{block[f'attn.{one}']}" for one in letters},
                norms={one: modules[f"{here}.attn.{one}_norm"][0] for one in "qk" if f"attn.{one}_norm" in block},
            )
        return read_rows(model, layers)

    def facts(self, model: Any) -> Mapping[str, object]:
        """Give what is so of HF's model, read off it and its config."""
        from verifier.reference.models import is_tied
        from verifier.reference.probing import norm_of

        config, modules = model.config, self._modules(model)
        norms = [module for name, (module, _) in modules.items() if name.endswith(("ln_final", "ln1", "ln1_post"))]
        positions = self.positions(vars(config))
        found: dict[str, object] = {
            "n_layers": config.num_hidden_layers,
            "d_model": config.hidden_size,
            "n_heads": config.num_attention_heads,
            "d_vocab": model.get_input_embeddings().weight.shape[0],
            "positional_embedding_type": positions,
            "tie_word_embeddings": is_tied(model),
        }
        if norms:
            norm = norm_of(norms[0], config.hidden_size)
            found |= {"normalization_type": "LN" if norm.centred else "RMS", "eps": norm.eps}
        if hasattr(config, "max_position_embeddings"):
            found["n_ctx"] = config.max_position_embeddings
        rope = getattr(config, "rope_parameters", None) or {}  # by kind of layer, where kinds have bases of their own
        if positions == "rotary" and "rope_theta" in rope:
            found["rotary_base"] = rope["rope_theta"]
        attending = next(
            (layer for layer in range(config.num_hidden_layers) if f"blocks.{layer}.attn" in modules), None
        )
        if attending is not None:
            rows = self.qkv_rows(model, attending)
            found |= {"n_key_value_heads": rows.k.rows.shape[0], "d_head": rows.q.rows.shape[1]}
        out: Any = next((module for name, (module, _) in modules.items() if name.endswith(".mlp.out")), None)
        if out is not None:
            found["d_mlp"] = out.nx if hasattr(out, "nx") else out.in_features
            found["parallel_attn_mlp"] = not self.is_sequential(vars(config))
            activation = next((getattr(config, name) for name in _ACTIVATIONS if hasattr(config, name)), None)
            found |= {} if activation is None else {"act_fn": activation}
        return found

    def point_source(self, config: Config, name: str) -> PointSource | None:
        """Say where HF's model shows a hook point, by canonical name; None if reading it takes more than a line.

        Args:
            config: the fields of HF's config.
            name: the canonical name of the point, such as `blocks.0.hook_resid_pre`.
        """
        writers: Mapping[str, str] = {}
        modules = {component: path for component, path in self.COMPONENTS.items() if component != BLOCKS}
        if name.startswith(f"{BLOCKS}."):
            layer = int(name.split(".")[1])
            here, block = f"{BLOCKS}.{layer}", self.block(config, layer)
            writers = self._writers(config, block)
            modules[here] = at = f"{self.COMPONENTS[BLOCKS]}.{layer}"
            modules |= {f"{here}.{component}": f"{at}.{path}" for component, path in block.items()}
        template = template_of(name)
        # What is multiplied, normalised or flattened on its way, or runs several times, is more than a line.
        more = template in self.multipliers(config) or (name == "hook_embed" and "embed_ln" in modules)
        flattened = name.startswith(f"{BLOCKS}.") and "mlp" not in self.block(config, int(name.split(".")[1]))
        if more or (flattened and template.split(".", 2)[2].startswith(("mlp", "ln2", "hook_mlp", "hook_resid_mid"))):
            return None
        modules = {component: path for component, path in modules.items() if "@" not in path}
        heads = self._read(config, _HEADS)
        return line_of(name, modules, writers, self.NORM_LINES, (heads, self._read(config, _KV_HEADS) or heads))


def _norm_points(components: Collection[str], *norms: str) -> list[str]:
    return [f"{norm}.hook_{what}" for norm in norms if norm in components for what in ("scale", "normalized")]
