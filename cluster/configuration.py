"""The sections that make a configuration, and whether they fit each other as far as the file alone can tell.

What depends on the data or on the landscape as built, the plan checks (``workers.suitability``, ``workers.mode``).
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from landsweep.cluster import settings
from landsweep.cluster.data_settings import Supervised
from landsweep.cluster.mistakes import custom_error
from landsweep.cluster.sections import Section
from landsweep.cluster.start_settings import misfit
from landsweep.cluster.training_settings import Sgd
from landsweep.workers.record import canonical_json


class Settings(Section):
    """What makes a configuration."""

    landscape: settings.AnyLandscape = Field(description="the loss: a built-in, or package.module:function")
    training: settings.AnyTraining = Field(default=Sgd(), description="how a trial descends")
    search: settings.Search = Field(default=settings.Search(), description="how candidates become stationary points")
    measure: settings.Measure = Field(default=settings.Measure(), description="what is measured at each point")


class Configuration(Settings):
    """The settings of one cell, which must fit each other."""

    @model_validator(mode="after")
    def _options_are_plain(self) -> Self:
        try:
            canonical_json(self.landscape.model_extra or {})
        except (TypeError, ValueError) as exc:
            text = f"found an option that JSON cannot hold ({exc}); allowed: finite plain values"
            raise custom_error("landscape", text) from exc
        return self

    @model_validator(mode="after")
    def _batch_fits(self) -> Self:
        batch, landscape = self.training.batch_size, self.landscape
        most = landscape.most_examples if isinstance(landscape, Supervised) else None
        if isinstance(batch, int) and most is not None and batch > most:
            text = f'found {batch}; allowed: at most landscape.train_size ({most}), or "full"'
            raise custom_error("training.batch_size", text)
        return self

    @model_validator(mode="after")
    def _trajectories_can_be_measured(self) -> Self:
        asked = self.measure.trajectory
        for name in ("alignment", "prediction"):
            if name in asked and self.training.steps == 0:
                text = f"found {name} with training.steps 0; it is of the step that follows: leave it out"
                raise custom_error("measure.trajectory", text)
        if "approach" in asked and self.search.saddles is None:
            text = (
                "found approach without search.saddles; it is the distance to a saddle that the trial found: search for"
            )
            raise custom_error("measure.trajectory", f"{text} saddles, or leave it out")
        return self

    @model_validator(mode="after")
    def _start_fits(self) -> Self:
        text = misfit(self.training.start, self.landscape)
        if text:
            raise custom_error("training.start.kind", text)
        return self
