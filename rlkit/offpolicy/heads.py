"""The networks of a learner: perceptrons or a user's modules, and extractors before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from rlkit.networks import Mlp
from rlkit.networks.gradient import State
from rlkit.networks.module import Head, ModuleEnsemble
from rlkit.networks.state_dependent import StateDependentHead
from rlkit.networks.torch_classes import module_and_settings
from rlkit.offpolicy.extractor import BorrowingNetwork, ExtractorNetwork, FeaturesExtractor
from rlkit.offpolicy.network_settings import Networks, Role, StateDependent
from rlkit.offpolicy.transitions import Inputs, View


def make_head(
    config: Networks,
    name: str,
    inputs: tuple[int, ...],
    outputs: int,
    members: int = 1,
    layer_norm: bool = False,
) -> Head:
    """Perceptrons, or the user's modules.

    Args:
        config: Says which.
        name: The network's name: "actor" has the role `pi`, all others `qf`.
        inputs: Width of each input part.
        outputs: Width of the output.
        members: Heads in the ensemble.
        layer_norm: Whether perceptrons have layer norm.
    """
    role: Role = "pi" if name == "actor" else "qf"
    if role == "pi" and isinstance(config, StateDependent) and config.use_sde:
        return StateDependentHead(
            inputs,
            config.layers(role),
            outputs,
            config.activation,
            config.log_std_init,
            config.use_expln,
            config.clip_mean,
            *config.learned_fourier,
        )
    given = config.module(role)
    if given is None:
        layers, features = config.layers(role), config.learned_fourier
        return Mlp(inputs, layers, outputs, members, layer_norm, config.activation, *features)
    kind, settings = module_and_settings(given)
    return ModuleEnsemble(kind, settings, inputs, outputs, members)


class Extraction:
    """The features extractors of a learner's networks; see `FeaturesExtractor`.

    Args:
        extractor: The function; each network has parameters of its own for it.
        config: What heads are made of, and whether actors borrow the critic's extractor.
        borrows: By name of an actor, the critic whose extractor it then reads.
        targets: By name of a target network, the network that it follows.

    Attributes:
        borrows: By name of a network without an extractor, the one whose extractor it reads.
    """

    def __init__(
        self,
        extractor: FeaturesExtractor,
        config: Networks,
        borrows: Mapping[str, str],
        targets: Mapping[str, str],
    ) -> None:
        self.extractor, self.config = extractor, config
        self.borrows = dict(borrows) if config.share_features_extractor else {}
        follows = {source: target for target, source in targets.items()}
        self.borrows |= {
            follows[actor]: follows[critic]
            for actor, critic in self.borrows.items()
            if actor in follows
        }

    def network(
        self, name: str, inputs: tuple[int, ...], outputs: int, members: int, layer_norm: bool
    ) -> ExtractorNetwork | BorrowingNetwork:
        """A network that reads features in place of the observation and the goal.

        Args:
            name: The network's name.
            inputs: Width of each part; the first two are the observation and the goal.
            outputs: Width of the output.
            members: Heads in the ensemble; they share one extractor.
            layer_norm: Whether perceptrons have layer norm.
        """
        widths = (self.extractor.features, *inputs[2:])
        head = make_head(self.config, name, widths, outputs, members, layer_norm)
        if name in self.borrows:
            return BorrowingNetwork(head)
        return ExtractorNetwork(self.extractor, head)

    def features(self, state: State, name: str, inputs: Inputs) -> Tensor:
        """The features that a network borrows, `(R, D)`; empty, `(R, 0)`, where it has its own."""
        own, observation, goal = inputs
        if name not in self.borrows:
            return own
        vector = state[self.borrows[name]][: self.extractor.size].detach()
        return self.extractor(vector, observation, goal).detach()

    def view(self, state: State, name: str, view: View) -> View:
        """What a network reads in a batch, with the features that it borrows."""
        if name not in self.borrows:
            return view
        current, after = (
            (self.features(state, name, one), *one[1:]) for one in (view.current, view.next)
        )
        return replace(view, current=current, next=after)
