from splitplace.policies.job import MAX_JOBS, Jobs
from tests.support.examples import three_ways


def test_jobs_of_a_batch_are_kept_until_the_application_is_another() -> None:
    app, jobs = three_ways(), Jobs()
    first = jobs.of(app, 8)
    assert list(first) == [variant.name for variant in app.variants]
    assert {job.batch for job in first.values()} == {8}
    assert jobs.of(app, 8) is first
    slower = three_ways(image_ms=99)
    assert all(job.application is slower for job in jobs.of(slower, 8).values())


def test_few_batches_are_kept() -> None:
    app, jobs = three_ways(), Jobs()
    first = jobs.of(app, 1)
    for batch in range(2, MAX_JOBS + 1):
        jobs.of(app, batch)
    assert jobs.of(app, 1) is first
    jobs.of(app, MAX_JOBS + 1)
    assert jobs.of(app, 1) is not first
