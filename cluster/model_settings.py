"""The built-in models' sections of a sweep file: one a model, its options with range, default and description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from landsweep.cluster.data_settings import Supervised
from landsweep.cluster.mistakes import custom_error, custom_errors, found
from landsweep.cluster.sections import AsTuple, Positive, Section, Units

Initialisation = Literal[
    "xavier_normal", "xavier_uniform", "he_normal", "he_uniform", "orthogonal", "scaled", "uniform_cube"
]
Activation = Literal["tanh", "sigmoid", "softplus", "silu", "gelu", "relu"]
Widths = Annotated[tuple[Units, ...], AsTuple]

_ACTIVATION = "smooth, or relu, whose kinks have no Hessian: kink_distance says how near a point is to one"
_HIDDEN = "units of each hidden layer, a list of integers ≥ 1"
_NORMALISED = (
    "no model has it: weights w that are normalised have no stationary point under weight decay λ, for L does not "
    "change with ‖w‖, so w·g = λ‖w‖²; resnet does without (fixup)"
)
_POOLED = "no model has it: it is not smooth; cnn pools by means (pool)"
#: keys that a reader may look for and no model has, with the reason
_ABSENT = dict.fromkeys(
    ("normalisation", "normalization", "batch_norm", "layer_norm", "group_norm", "weight_norm", "norm"), _NORMALISED
) | dict.fromkeys(("max_pool", "max_pooling"), _POOLED)


class Model(Supervised):
    """What the models share."""

    init_scale: Positive = Field(
        default=1.0,
        description="factor on the initial weights; of scaled their standard deviation, of uniform_cube the a of "
        "[−a, a]ⁿ, > 0",
    )

    @model_validator(mode="before")
    @classmethod
    def _keys_that_cannot_be(cls, data: Any) -> Any:
        mistakes = [(key, _ABSENT[key]) for key in data if key in _ABSENT] if isinstance(data, Mapping) else []
        if mistakes:
            raise custom_errors(mistakes)
        return data


class Drawn(Model):
    """A model whose weights are drawn alike in every layer."""

    initialisation: Initialisation = Field(
        default="xavier_normal", description="distribution of the initial weights; biases start at 0"
    )


class Mlp(Drawn):
    """A fully connected net on a data set."""

    name: Literal["mlp"] = Field(description="the built-in fully connected net")
    hidden: Widths = Field(default=(10,), min_length=1, max_length=64, description=_HIDDEN)
    activation: Activation = Field(default="tanh", description=_ACTIVATION)
    bias: bool = Field(default=True, description="whether layers have biases")


class Cnn(Drawn):
    """Convolutions, each with an activation and mean pooling, and fully connected layers, on images."""

    name: Literal["cnn"] = Field(description="the built-in convolutional net")
    channels: Widths = Field(
        default=(8, 16), min_length=1, max_length=16, description="channels of each convolution, a list of integers ≥ 1"
    )
    kernel: int = Field(default=3, ge=1, le=64, description="pixels a side of each kernel")
    stride: int = Field(default=1, ge=1, le=64, description="pixels from one place of the kernel to the next")
    padding: Literal["same", "valid"] = Field(
        default="same", description="same: (kernel − 1)/2 zeros around each image; valid: none"
    )
    pool: int = Field(default=2, ge=1, le=64, description="mean pooling of pool × pool pixels after each; 1: none")
    hidden: Widths = Field(default=(), max_length=64, description=f"fully connected layers: {_HIDDEN}")
    activation: Activation = Field(default="tanh", description=_ACTIVATION)

    @model_validator(mode="after")
    def _same_has_a_middle(self) -> Self:
        if self.padding == "same" and self.kernel % 2 == 0:
            text = f"found {self.kernel} with padding same; allowed: an odd number, or padding: valid"
            raise custom_error("kernel", text)
        return self


class Resnet(Model):
    """A residual net as for CIFAR, 6n + 2 layers, without normalisation (fixup), on images."""

    name: Literal["resnet"] = Field(description="the built-in residual net")
    depth: int = Field(default=8, ge=8, le=1202, description="layers of weights, 6n + 2: 8, 14, 20, …")
    width: int = Field(default=16, ge=1, le=4096, description="channels of the first stage; the others have 2×, 4×")
    activation: Activation = Field(default="silu", description=_ACTIVATION)
    initialisation: Literal[Initialisation, "fixup"] = Field(
        default="fixup", description="distribution of the initial weights; fixup: as Zhang, Dauphin & Ma (2019)"
    )

    @model_validator(mode="after")
    def _whole_blocks(self) -> Self:
        if self.depth % 6 != 2:
            below = self.depth - (self.depth - 2) % 6
            text = f"found {self.depth}; allowed: 6n + 2, as {below} or {below + 6}: three stages of n two-layer blocks"
            raise custom_error("depth", text)
        return self


class Rnn(Drawn):
    """Elman's recurrent net on sequences; its last state is classified."""

    name: Literal["rnn"] = Field(description="the built-in recurrent net")
    hidden: Units = Field(default=16, description="units of the state")
    activation: Activation = Field(default="tanh", description=_ACTIVATION)


class Autoencoder(Drawn):
    """An autoencoder: a net that is trained to give back its inputs; labels are not used."""

    name: Literal["autoencoder"] = Field(description="the built-in autoencoder")
    hidden: Widths = Field(
        default=(4,),
        min_length=1,
        max_length=32,
        description="units of the encoder's layers, the last that of the code; the decoder mirrors them",
    )
    tied: bool = Field(default=False, description="the decoder's weights are the encoder's, transposed")
    activation: Literal[Activation, "linear"] = Field(default="tanh", description=f"linear: none; {_ACTIVATION}")
    bias: bool = Field(default=True, description="whether layers have biases")
    loss: Literal["mse"] = Field(
        default="mse", description="mean (z − x)² over samples and inputs; there are no classes for a cross-entropy"
    )

    @model_validator(mode="after")
    def _labels_are_not_used(self) -> Self:
        for key in ("label_noise", "random_labels"):
            if getattr(self, key):
                text = f"found {found(getattr(self, key))}; an autoencoder does not use labels: leave it out"
                raise custom_error(key, text)
        return self


class DeepLinear(Drawn):
    """A product of matrices, fully connected layers without activation or bias, on a data set."""

    name: Literal["deep_linear"] = Field(description="the built-in deep linear net")
    hidden: Widths = Field(default=(10,), min_length=1, max_length=64, description=_HIDDEN)
    loss: Literal["mse"] = Field(
        default="mse", description="mean (z − t)² over samples and classes, t the labels one-hot: what its theory is of"
    )


MODELS: dict[str, type[Section]] = {
    "mlp": Mlp,
    "cnn": Cnn,
    "resnet": Resnet,
    "rnn": Rnn,
    "autoencoder": Autoencoder,
    "deep_linear": DeepLinear,
}
