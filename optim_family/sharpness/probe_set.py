"""Several views at once, each kind of them measured once."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, final

from torch import Tensor

from optim_family.curvature.sampled_lanczos import FINEST_RTOL, MAX_WANTED, MIN_TERMS
from optim_family.geometry import Geometry
from optim_family.operators import SymmetricOperator
from optim_family.sharpness.generalized import BUDGET, require_budget
from optim_family.sharpness.generalized_probe import GeneralizedProbe
from optim_family.sharpness.probe import Probe, Reading, ReadingMethod
from optim_family.sharpness.views import View, view_by_name
from optim_family.space import norm

NO_SAMPLE: Final = (
    f"measured by Lanczos: a sample needs at least {MIN_TERMS} ghost batches, of which few stand out, "
    f"at most {MAX_WANTED} eigenvalues and an rtol of at least {FINEST_RTOL:g}"
)
NOT_CONVERGED: Final = "measured by Lanczos: the search in the sample did not converge"


def lanczos_instead(readings: Mapping[str, Reading]) -> str:
    """Why a reading that was to come from a sample is Lanczos's; empty if none is, or only as an audit."""
    eigenvalues = [reading for name, reading in readings.items() if not view_by_name(name).generalized]
    if any(not reading.sample_products for reading in eigenvalues):
        return NO_SAMPLE
    failed = any(reading.method == "lanczos" and reading.audit is None for reading in eigenvalues)
    return NOT_CONVERGED if failed else ""


@final
class ProbeSet:
    """Measures several views, once for each kind; remembers one probe a kind.

    Args:
        views: by name.
        budget: Hessian-vector products of a generalised reading.
        reading: of the eigenvalues, as for `Probe`.
        **options: those of `Probe`.

    Raises:
        ValueError: an unknown view, or a budget below 2.
    """

    def __init__(
        self,
        views: Iterable[str],
        *,
        budget: int | None = None,
        reading: ReadingMethod = "lanczos",
        **options: Any,
    ) -> None:
        self.views = [view_by_name(name) for name in views]
        self.names = [view.name for view in self.views]
        products = require_budget(BUDGET if budget is None else budget)

        def probe(view: View) -> Probe | GeneralizedProbe:
            if view.generalized:
                return GeneralizedProbe(view, budget=products, **options)
            return Probe(view, reading=reading, **options)

        self.probes = {view.kind: probe(view) for view in self.views}

    def __call__(
        self, hessian: SymmetricOperator, weights: Tensor, geometry: Geometry | None = None
    ) -> dict[str, Reading]:
        """One reading for each view, by name; views of one kind share products and seconds."""
        readings, length = dict[str, Reading](), float(norm(weights))
        for kind, probe in self.probes.items():
            same = [view for view in self.views if view.kind == kind]
            readings |= probe.readings(same, hessian, weights, geometry, length)
        return {view.name: readings[view.name] for view in self.views}

    def state_dict(self) -> dict[str, Any]:
        """What the next readings depend on."""
        return {p.view.name: p.state_dict() for p in self.probes.values()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the saved state of a probe set of the same views."""
        for probe in self.probes.values():
            probe.load_state_dict(state[probe.view.name])
