"""The loop-free pruner: one call after `optimizer.step()`, for any training loop.

    pruner = Pruner(model, optimizer, plan_schedule("cubic", total_steps=2000), target=0.9)
    for batch in batches:
        loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()

Masks live here, outside the model, one per storage; the model keeps its own plain parameters, so it deep-copies, saves
and loads as before. Weights are masked in place, their gradients as they are accumulated (so clipping sees what the
optimizer will), and the optimizer's moments at every mask update, since they would bring dropped weights back.
Gradients that come another way (torch.autograd.grad, one set by hand) are masked as the optimizer's step begins: the
optimizer never sees them whole, but a clipping before that did. One that is changed in place after it was accumulated
(noise added to it) is not looked at again: mask the noise with `masks`, or dropped weights' moments take it up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rnnprune.errors import UsageError
from rnnprune.pruning.groups import Group, GroupUpdate, group_weights
from rnnprune.pruning.masked_weight import MaskedWeight, sparsity_of
from rnnprune.pruning.options import NO_COLUMNS_BY_THRESHOLD, SaliencyName, Selection, require_one_of, require_target
from rnnprune.pruning.saliency import SALIENCIES, fisher
from rnnprune.pruning.schedules import Gradual, Schedule
from rnnprune.pruning.second_moments import SecondMoments
from rnnprune.pruning.tying import masked_weights, places_of, require_same_parameters, shapes_of, with_zeros_told


@dataclass(frozen=True)
class PruningUpdate:
    """One mask update. Shares are of all weights that are pruned, taken together."""

    step: int
    sparsity: float
    groups: Mapping[str, GroupUpdate]

    @property
    def revived(self) -> int:
        """Weights (or blocks) that came back at this update."""
        return sum(group.revived for group in self.groups.values())


class Pruner:
    """Prunes a model while somebody else trains it.

    model: any module; recurrent and linear weights are pruned, see `choices` for every tensor and its reason.
    optimizer: the one that trains it; only its real steps count, not those that mixed precision skips.
    schedule: see `plan_schedule`; steps are optimizer steps.
    target: final share of zeros in every group of `selection.scope` that has none of its own, 0 < target < 1, reached
    exactly at `schedule.end_step`.
    saliency: "magnitude", or "fisher", mostly the better one: it reads Adam's second moments, and keeps them itself,
    one more float32 for each weight, under an optimizer that has none.
    selection: which weights, in which blocks, and what shares the target: left open, the whole model under "fisher",
    each tensor under "magnitude".
    share: among several processes, called with every mask update's masks and gives those that all of them shall use,
    such as the first process's, broadcast.

    A weight that is half zeros or more when the Pruner is built was pruned before: its zeros start as dropped (its
    reason in `choices` says so) and stay, save where a schedule revives. Build the Pruner after loading the model,
    moving it to its device and converting its dtype.

    Raises UsageError for a selection or a target that cannot work.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        *,
        target: float = 0.9,
        saliency: SaliencyName = "magnitude",
        selection: Selection | None = None,
        share: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None,
    ) -> None:
        require_target(target)
        require_one_of("saliency", saliency, SaliencyName)
        selection = (selection or Selection()).under(saliency)
        if selection.n_of_m and isinstance(schedule, Gradual):
            raise UsageError(NO_COLUMNS_BY_THRESHOLD)
        self.schedule = schedule
        self.target = target
        self.step_count = 0
        self._model = model
        self._optimizer = optimizer
        self._saliency = SALIENCIES[saliency]
        self._moments = SecondMoments()
        self._share = share
        self._weights, choices = masked_weights(model, optimizer, selection)
        self._places = places_of(model, self._weights)
        self._groups = group_weights(self._weights, selection, shapes_of(model), target)
        self.choices = with_zeros_told(choices, self._places)
        self._quantiles: dict[str, float] = {}
        self._optimizer_has_stepped = False
        self._masked_gradients: dict[int, Tensor] = {}  # id of a parameter -> its gradient, once accumulated and masked
        self._hooks = self._hook_in()
        self._mask_everything()

    @property
    def sparsity(self) -> float:
        """Share of dropped weights, over all that are pruned."""
        return sparsity_of(self._weights)

    @property
    def masks(self) -> dict[str, Tensor]:
        """Name -> bool mask, True = keep; tied weights under the first of their names."""
        return {weight.name: weight.mask for weight in self._weights}

    @property
    def quantiles(self) -> dict[str, float]:
        """q of equation 1 per group, as it was when the schedule first needed it, or with `aim` last read it."""
        return dict(self._quantiles)

    def step(self) -> PruningUpdate | None:
        """Call right after `optimizer.step()`; gives the mask update if one fell on this step.

        Raises UsageError when the model's weights are no longer those that the Pruner was built on.
        """
        if not self._optimizer_has_stepped:
            return None
        require_same_parameters(self._model, self._places)
        self._optimizer_has_stepped = False
        self.step_count += 1
        update = self._update_masks()
        if update is not None:
            self._mask_everything()
        else:
            self._mask_weights()
        return update

    def apply_to(self, model: nn.Module) -> None:
        """Mask a copy of the model, such as an average of its weights: averages of sparse weights are not sparse."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        if missing := [weight.name for weight in self._weights if weight.name not in parameters]:
            raise UsageError(
                f"no copy of the pruned model: {missing[0]} is missing; "
                "of an AveragedModel or DistributedDataParallel pass its `.module`"
            )
        with torch.no_grad():
            for weight in self._weights:
                parameters[weight.name].masked_fill_(~weight.mask.to(parameters[weight.name].device), 0.0)

    def state_dict(self) -> dict[str, Any]:
        """Step, quantiles, masks, and the second moments that the optimizer does not keep: what a resumed run needs."""
        moments = self._moments.state_dict()
        return {"step": self.step_count, "quantiles": self.quantiles, "masks": self.masks, "second_moments": moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`; load model and optimizer first. Raises UsageError when it does not fit."""
        masks: Mapping[str, Tensor] = state["masks"]
        found, expected = ({name: tuple(mask.shape) for name, mask in each.items()} for each in (masks, self.masks))
        if found != expected:
            differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            raise UsageError(
                f"the saved masks belong to another model or selection; they differ in {', '.join(differing)}"
            )
        if strange := state["quantiles"].keys() - {group.name for group in self._groups}:
            raise UsageError(
                f"the saved state shared its target out by other groups, such as {min(strange)}; give the Pruner the "
                "selection that it was saved with (its scope, if that was left open, is that of the saliency)"
            )
        if self._saliency is fisher:
            self._moments.load_state_dict(state.get("second_moments", {}), self._weights)
        self.step_count = int(state["step"])
        self._quantiles = dict(state["quantiles"])
        for weight in self._weights:
            weight.mask = masks[weight.name].to(weight.weight.device, torch.bool).clone()
        self._mask_everything()

    def close(self) -> None:
        """Take the hooks off the model and the optimizer; the weights stay as they are, and `step()` does nothing."""
        for hook in self._hooks:
            hook.remove()
        self._masked_gradients.clear()
        self._optimizer_has_stepped = False

    def _hook_in(self) -> list[RemovableHandle]:
        hooks = [
            tensor.register_post_accumulate_grad_hook(partial(self._note_gradient, weight))  # type: ignore[no-untyped-call]
            for weight in self._weights
            for tensor in weight.tensors
        ]
        pre_hook = self._optimizer.register_step_pre_hook(self._before_a_step)
        return [*hooks, pre_hook, self._optimizer.register_step_post_hook(self._note_step)]

    @property
    def _reviving(self) -> bool:
        return self.schedule.revive and self.step_count < self.schedule.end_step

    def _score(self, weight: MaskedWeight) -> Tensor:
        try:
            return self._saliency(weight.weight, self._moments.state_of(weight, self._optimizer))
        except UsageError as error:
            raise UsageError(f"{weight.name}: {error}") from error

    def _update_masks(self) -> PruningUpdate | None:
        if self.schedule.cut_at(self.step_count, self.target, q=0.0) is None:
            return None
        updates = {group.name: self._cut(group) for group in self._groups}
        if self._share is not None:
            shared = self._share([weight.mask for weight in self._weights])
            for weight, mask in zip(self._weights, shared, strict=True):
                weight.mask = mask
        return PruningUpdate(self.step_count, self.sparsity, updates)

    def _cut(self, group: Group) -> GroupUpdate:
        if self.schedule.aim or group.name not in self._quantiles:
            self._quantiles[group.name] = group.quantile(self._score, group.target)
        cut = self.schedule.cut_at(self.step_count, group.target, self._quantiles[group.name])
        assert cut is not None
        return group.cut(cut, self._score, revive=self.schedule.revive)

    def _before_a_step(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """New arguments for a step with a closure, whose gradients come only once the step runs it."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._see_gradients()
            return None
        calls = count()

        def seen() -> Any:
            result = closure()
            if next(calls) == 0:  # LBFGS calls it many times in a step
                self._see_gradients()
            return result

        return (args[0], seen, *args[2:]), {name: value for name, value in kwargs.items() if name != "closure"}

    def _see_gradients(self) -> None:
        self._mask_other_gradients()
        read_again = self._saliency is fisher and self.step_count < self.schedule.end_step
        if read_again and not _skips(self._optimizer):
            self._moments.update(self._weights, self._optimizer)

    def _note_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if not _skips(optimizer):
            self._optimizer_has_stepped = True

    def _mask_gradient(self, weight: MaskedWeight, parameter: Tensor) -> None:
        if parameter.grad is None or self._reviving:
            return
        weight.require_fit(parameter)
        if 0 in parameter.grad.stride():  # an expanded tensor, set by hand: several places are one in memory
            parameter.grad = parameter.grad.clone(memory_format=torch.contiguous_format)
        weight.apply_to(parameter.grad)

    def _note_gradient(self, weight: MaskedWeight, parameter: Tensor) -> None:
        self._mask_gradient(weight, parameter)
        if parameter.grad is not None:
            self._masked_gradients[id(parameter)] = parameter.grad

    def _mask_other_gradients(self) -> None:
        """Those that no backward pass accumulated since the last step; to mask all again would cost 0.6 % of a step."""
        for weight in self._weights:
            for tensor in weight.tensors:
                if tensor.grad is not self._masked_gradients.get(id(tensor)):
                    self._mask_gradient(weight, tensor)
        self._masked_gradients.clear()

    def _mask_everything(self) -> None:
        self._mask_weights()
        if not self._reviving:
            self._masked_gradients.clear()
            self._mask_other_gradients()
            self._mask_moments()

    def _mask_weights(self) -> None:
        for weight in self._weights:
            weight.apply_to(weight.weight)

    def _mask_moments(self) -> None:
        for weight in self._weights:
            self._moments.mask(weight)
            for tensor in weight.tensors:
                for moment in self._optimizer.state.get(tensor, {}).values():
                    if isinstance(moment, Tensor) and moment.shape == tensor.shape:
                        weight.apply_to(moment)


def _skips(optimizer: torch.optim.Optimizer) -> bool:
    """A fused optimizer under a GradScaler is called even for a step that it skips; the scaler tells it so here."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)
