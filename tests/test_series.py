from __future__ import annotations

import threading

from prometheus_client.parser import text_string_to_metric_families

from server.series import Counter, Histogram, Info, Reading, Series


def samples(series: Series, constant: str = "") -> dict[tuple[str, ...], float]:
    """(name, label values) to value, as Prometheus' own parser reads the lines."""
    (family,) = text_string_to_metric_families(series.render(series.name, constant))
    return {(s.name, *s.labels.values()): s.value for s in family.samples}


def test_a_reading_is_read_at_each_scrape() -> None:
    value = 1
    reading = Reading("load", "How much.", "gauge", lambda: value)
    assert samples(reading) == {("load",): 1}
    value = 7
    assert samples(reading) == {("load",): 7}


def test_a_counter_counts_each_value_of_its_label() -> None:
    counter = Counter("errors_total", "Errors.", "code", known=["a"])
    counter.increase("b")
    counter.increase("b", 2)
    assert samples(counter) == {("errors_total", "a"): 0, ("errors_total", "b"): 3}


def test_a_counter_without_a_label_begins_at_nothing() -> None:
    counter = Counter("steps_total", "Steps.")
    assert samples(counter) == {("steps_total",): 0}
    counter.increase(amount=4)
    assert samples(counter) == {("steps_total",): 4}


def test_a_histogram_counts_up_to_and_with_each_bound() -> None:
    histogram = Histogram("wait_seconds", "Waits.", (0.1, 1.0, 5.0))
    for value in (0.05, 0.1, 0.5, 6.0):
        histogram.observe(value)
    histogram.observe(0.5, times=2)
    assert samples(histogram) == {
        ("wait_seconds_bucket", "0.1"): 2,
        ("wait_seconds_bucket", "1.0"): 5,
        ("wait_seconds_bucket", "5.0"): 5,
        ("wait_seconds_bucket", "+Inf"): 6,
        ("wait_seconds_sum",): 7.65,
        ("wait_seconds_count",): 6,
    }


def test_another_name_and_labels_for_all_samples() -> None:
    histogram = Histogram("own_tokens", "Tokens, 100 % of them.", (1,))
    histogram.observe(1)
    text = histogram.render("their:tokens", 'model="a%b"')
    assert "own_tokens" not in text
    assert 'their:tokens_bucket{model="a%b",le="1.0"} 1' in text
    assert 'their:tokens_count{model="a%b"} 1' in text
    assert "# HELP their:tokens Tokens, 100 % of them." in text


def test_labels_are_escaped() -> None:
    info = Info("build_info", "Build.", lambda: {"path": 'a"b\\c\nd'})
    assert samples(info) == {("build_info", 'a"b\\c\nd'): 1}


def test_without_facts_there_is_no_sample() -> None:
    assert Info("build_info", "Build.", dict).render("build_info") == ""


def test_no_observation_of_any_thread_is_lost() -> None:
    histogram = Histogram("wait_seconds", "Waits.", (1.0,))

    def observe() -> None:
        for _ in range(5000):
            histogram.observe(0.5)

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert samples(histogram)[("wait_seconds_count",)] == 20000
