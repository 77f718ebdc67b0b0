"""Check a specification as far as no network, no image and no gradient is needed."""

from optim_family.data import datasets
from optim_family.networks import cards
from optim_family.training.ghost_batch import choose_ghost_batch
from optim_family.training.spec import RunSpec


def check_plan(spec: RunSpec) -> None:
    """Check model, data set, schedule, mini-batch and ghost batch.

    The batches are checked if the number of training images is known, from a limit or from the catalogue.

    Raises:
        UsageError: a name is unknown, the file of the data is absent, the schedule is invalid, or a batch
            does not suit the training set.
        CorruptError: the file of the data is empty.
    """
    cards.load(spec.model)
    datasets.check_source(spec.data)
    if spec.schedule:
        from optim_family.training.lr_scheduler import parse

        parse(spec.schedule)
    if size := spec.limit or datasets.train_images(spec.data):
        choose_ghost_batch(size, spec.batch_size, spec.ghost_batch)
