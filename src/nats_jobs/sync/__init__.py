"""Jobs enqueued by code that is not async: Django, Flask, scripts, threads.

with Producer("nats://127.0.0.1:4222") as producer:
    producer.enqueue(send_mail, "ada@example.org")
"""

from ._producer import Producer as Producer

__all__ = ("Producer",)
