import os
import signal
import threading

import pytest

from optim_family.errors import Stopped
from optim_family.training import stop_signal
from optim_family.training.progress import ProgressListener
from optim_family.training.stop_signal import SIGNALS, StopSignal


def test_nothing_is_raised_until_a_signal_has_come():
    with StopSignal().install() as stop:
        stop.check()
        assert stop.signal is None


CODES = [(number, 130 if number == signal.SIGINT else 75) for number in SIGNALS]


@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_signal_waits_until_somebody_checks(number, code):
    with StopSignal().install() as stop:
        os.kill(os.getpid(), number)
        assert stop.signal == number
        with pytest.raises(Stopped, match=rf"stopped by {number.name}; .* --resume to continue") as caught:
            stop.check()
    assert caught.value.exit_code == code


def test_the_first_signal_is_acknowledged_once(capfd):
    with StopSignal("stopping").install():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert capfd.readouterr().err == "stopping\n"


@pytest.mark.parametrize("second", SIGNALS)
@pytest.mark.parametrize(("number", "code"), CODES)
def test_a_second_signal_does_not_wait(monkeypatch, number, code, second):
    monkeypatch.setattr(stop_signal, "DUPLICATE_SIGNAL_SECONDS", 0.0)
    with StopSignal().install(), pytest.raises(SystemExit) as exited:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), second)
    assert exited.value.code == code


def test_one_wish_may_come_as_two_signals():
    with StopSignal().install() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGINT


def test_the_handlers_are_put_back_whatever_happened():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), StopSignal().install():
        assert signal.getsignal(signal.SIGTERM) is not before[0]
        raise ZeroDivisionError
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_in_another_thread_nothing_is_caught_and_nothing_fails():
    handlers = []

    def work():
        with StopSignal().install() as stop:
            stop.check()
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_a_watcher_takes_everything_and_does_nothing(capfd):
    listener = ProgressListener()
    listener.on_start(10, 0)
    listener.on_step(1, 0.5)
    listener.on_record({"step": 1})
    listener.on_message("once")
    listener.on_end()
    assert capfd.readouterr() == ("", "")
