"""SB3's names for what networks are made of, as options of an agent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import optim

from rlkit.io.serialisation import plain_data
from rlkit.names import nearest, require_known
from rlkit.networks.torch_classes import class_name
from rlkit.offpolicy.schedules import TabulatedSchedule

CNN_FEATURES = 50  # as in Yarats et al. 2021
CNN_SETTINGS = ("features_dim", "normalized_image")
SAME = {
    "net_arch": "net_arch",
    "n_critics": "critics",
    "n_quantiles": "quantiles",
    "activation_fn": "activation",
    "share_features_extractor": "share_features_extractor",
    "normalize_images": "normalize_images",
    "network": "network",
    "log_std_init": "log_std_init",
    "use_expln": "use_expln",
    "clip_mean": "clip_mean",
}
"""Settings of SB3's policies, and of ours, whose values need no translation."""
EXTRACTOR = ("features_extractor_class", "features_extractor_kwargs")
OPTIMISER = ("optimizer_class", "optimizer_kwargs")
POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")
SB3_CLASSES = {
    **dict.fromkeys(("SACPolicy", "TD3Policy", "DQNPolicy"), "MlpPolicy"),
    **{name: name for name in POLICIES},
}
"""Classes that SB3's modules of agents hold as `MlpPolicy` and so on."""
DEFAULT_EXTRACTORS = {"CnnPolicy": "nature_cnn", "MultiInputPolicy": "combined"}


def policy_name(policy: Any) -> str:
    """The name of a policy, which users of SB3 may also give as a class of theirs.

    Raises:
        ValueError: If it is another class: networks are made by the agent.
    """
    name = SB3_CLASSES.get(getattr(policy, "__name__", ""), policy)
    is_own = isinstance(policy, type) and policy.__module__.startswith(("stable_base", "rlkit."))
    if isinstance(policy, type) and not (is_own and isinstance(name, str)):
        raise ValueError(
            f"policy = {policy.__name__} is a class of its own, and agents make their networks "
            f'themselves: give "MlpPolicy", "CnnPolicy" or "MultiInputPolicy", and modules in '
            f"policy_kwargs={{'features_extractor_class': ..., 'network': ...}}"
        )
    if name not in POLICIES:
        raise ValueError(f"Policy {name} unknown. {nearest(str(name), POLICIES)}")
    return str(name)


def policy_options(
    policy: Any, latent: Any, options: Mapping[str, Any], policy_kwargs: Mapping[str, Any] | None
) -> tuple[Any, dict[str, Any]]:
    """The latent model and the configuration's fields that SB3's policy settings amount to.

    Args:
        policy: SB3's policy name: "CnnPolicy" without a latent model learns one end to end, or
            where a setting is of SB3's own network for images, it is that network.
        latent: As the agent takes it.
        options: Fields of the configuration.
        policy_kwargs: SB3's settings of policies.

    Raises:
        ValueError: If one of them has no counterpart.
    """
    given = {name: value for name, value in (policy_kwargs or {}).items() if value is not None}
    known = (*SAME, *EXTRACTOR, *OPTIMISER)
    for name in given:
        if name not in known:
            raise ValueError(
                f"policy_kwargs has no {name!r}. {nearest(name, known)} Everything else is an "
                f"option of the agent itself"
            )
    options = {**options, **{SAME[name]: given[name] for name in given if name in SAME}}
    extractor = _extractor(policy, given)
    if policy == "CnnPolicy" and latent is None and extractor is None:
        width = given.get("features_extractor_kwargs", {}).get("features_dim", CNN_FEATURES)
        latent = {"name": "autoencoder", "dims": width, "squash": True}
        options = {"joint": True, "reconstruction": 0.0, **options}
    if extractor is not None:
        options["features_extractor"] = extractor
    if options.get("features_extractor") is not None:
        # Extractors read what SB3's read: observations as they are.
        options = {"normalise": False, **options}
    return latent, options | _optimiser(given)


def replaced_fields(policy_kwargs: Mapping[str, Any] | None) -> set[str]:
    """The options that SB3's policy settings determine, whatever else is given for them."""
    given = policy_kwargs or {}
    found = {SAME[name] for name in given if name in SAME}
    found |= {"features_extractor"} if EXTRACTOR[0] in given else set()
    return found | ({"optimiser", "optimiser_kwargs"} if OPTIMISER[0] in given else set())


def _extractor(policy: Any, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The features extractor with its arguments; None for none."""
    kind = given.get("features_extractor_class")
    settings = dict(given.get("features_extractor_kwargs", {}))
    if kind is None:
        kind = DEFAULT_EXTRACTORS.get(str(policy))
        is_ours = not settings
        if policy == "CnnPolicy":
            others = {"share_features_extractor", "normalize_images"} & set(given)
            require_known("features_extractor_kwargs", settings, CNN_SETTINGS)
            is_ours = not others and set(settings) <= {"features_dim"}
        if is_ours:
            return None
    if kind is None:
        raise ValueError(
            f"features_extractor_kwargs = {settings} needs a features_extractor_class: "
            f"{policy} has no features extractor"
        )
    if isinstance(kind, Mapping):
        return {**kind, **settings}
    return {"name": kind, **settings}


def _optimiser(given: Mapping[str, Any]) -> dict[str, Any]:
    kind, settings = given.get("optimizer_class"), dict(given.get("optimizer_kwargs", {}))
    if kind is None and not settings:
        return {}
    found: dict[str, Any] = {"optimiser": "adam" if kind in (None, optim.Adam) else kind}
    if kind is optim.AdamW:
        found |= {"optimiser": "adamw", "weight_decay": settings.pop("weight_decay", 0.01)}
    elif found["optimiser"] == "adam" and settings.get("weight_decay") == 0:
        del settings["weight_decay"]
    return found | {"optimiser_kwargs": settings or None}


def saved_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """An agent's options as plain data; classes become names, schedules tables of their values.

    Raises:
        ValueError: If a value has no such form.
    """
    plain: dict[str, Any] = {}
    for name, value in options.items():
        if name == "learning_rate" and callable(value):
            schedule = TabulatedSchedule.of(value)
            plain[name] = {"schedule": list(schedule.values)}
        elif name == "optimiser":
            plain[name] = class_name(value, "optimiser")
        elif name == "activation":
            plain[name] = class_name(value, "activation")
        elif name == "features_extractor":
            plain[name] = _saved_module(name, value)
        elif name == "network" and value is not None:
            plain[name] = {role: _saved_module(name, one) for role, one in value.items()}
        else:
            plain[name] = _saved(name, value)
    return plain


def _saved_module(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        settings = {key: _saved(f"{name}.{key}", part) for key, part in value.items()}
        return {**settings, "name": class_name(value["name"], "network module")}
    return None if value is None else class_name(value, "network module")


def _saved(name: str, value: Any) -> Any:
    if isinstance(value, type):
        return {"class": class_name(value, "activation")}
    if callable(value):
        raise ValueError(
            f"{name} is a function, and files hold plain data only; pass a number, or set it "
            f"again when loading: load(path, {name}=...)"
        )
    return plain_data(value)
