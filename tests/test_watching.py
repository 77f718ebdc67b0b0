import os
import signal
import threading

import pytest

from optim_family.errors import Stopped
from optim_family.watching import Stop, Watcher


def test_nothing_is_raised_until_a_signal_has_come():
    with Stop().install() as stop:
        stop.check()
        assert stop.signal is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_waits_until_somebody_checks(number, code):
    with Stop().install() as stop:
        os.kill(os.getpid(), number)
        assert stop.signal == number
        with pytest.raises(Stopped, match=rf"stopped by {number.name}; .* --resume continues") as caught:
            stop.check()
    assert caught.value.exit_code == code


def test_a_second_ctrl_c_does_not_wait():
    with Stop().install(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_sigterm_still_waits():
    with Stop().install() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


def test_the_handlers_are_put_back_whatever_happened():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), Stop().install():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
        raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_in_another_thread_nothing_is_caught_and_nothing_fails():
    handlers = []

    def work():
        with Stop().install() as stop:
            stop.check()
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_a_watcher_takes_everything_and_does_nothing(capfd):
    watcher = Watcher()
    watcher.begin(10, 0)
    watcher.step(1, 0.5)
    watcher.record({"step": 1})
    watcher.note("once")
    watcher.end()
    assert capfd.readouterr() == ("", "")
