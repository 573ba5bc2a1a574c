"""Rows to vectors the straightforward way: SELECT, ``SentenceTransformer.encode``, ``upsert``.

    python -m jobs.benchmark.peers.naive_script --model FOLDER --client 1 --rows 2000 < URL

It does what an engineer writes in an afternoon: a server-side cursor, batches of 256 rows, the
library's defaults otherwise. Standard input is Postgres' URL and, on a second line, Qdrant's key. Without
``--qdrant-url`` the vectors go to qdrant-client's local mode in memory. The time it prints is that of the
loop alone: imports and the loading of the model are left out, so its rate does not depend on how many
rows there are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import psycopg
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams
from sentence_transformers import SentenceTransformer

COLLECTION = "rowbeam_benchmark_naive_script"
BATCH = 256


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a folder or hub id")
    parser.add_argument("--client", type=int, required=True, help="client_id of the rows")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--qdrant-url")
    args = parser.parse_args()
    # On standard input, because a command line can be read by everybody on the machine.
    dsn, _, api_key = sys.stdin.read().strip().partition("\n")

    model = SentenceTransformer(args.model, device="cpu")
    url = args.qdrant_url
    qdrant = QdrantClient(url=url, api_key=api_key or None) if url else QdrantClient(":memory:")
    qdrant.delete_collection(COLLECTION)
    size = model.encode("ready").shape[0]
    qdrant.create_collection(COLLECTION, VectorParams(size=size, distance=Distance.COSINE))

    began = time.perf_counter()
    done = 0
    with psycopg.connect(dsn) as connection, connection.cursor("rows") as cursor:
        cursor.execute(
            "SELECT id, title, description, status FROM pull_requests"
            " WHERE client_id = %s AND active ORDER BY id LIMIT %s",
            (args.client, args.rows),
        )
        while rows := cursor.fetchmany(BATCH):
            texts = [f"{description}\n{title}".strip() for _, title, description, _ in rows]
            vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
            points = [
                PointStruct(id=key, vector=vector.tolist(), payload={"title": title, "status": status})
                for (key, title, _, status), vector in zip(rows, vectors, strict=True)
            ]
            qdrant.upsert(COLLECTION, points, wait=True)
            done += len(rows)
    seconds = time.perf_counter() - began
    qdrant.delete_collection(COLLECTION)
    print(json.dumps({"rows": done, "seconds": seconds}))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
