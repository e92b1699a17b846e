"""A service that tells how far a task is. It knows nothing of ssegate: it posts to the address of a push service."""

import asyncio
import os
import sys

import httpx

PUSH = os.environ.get("PUSH", "http://localhost:8089")


async def send_progress_message(task_id: str, progress: int):
    message = {
        "type": "progress",
        "service": "knowledge-service",
        "target": {"task_id": task_id},
        "data": {
            "progress": progress,
            "message": f"处理进度: {progress}%"
        }
    }

    async with httpx.AsyncClient() as client:
        await client.post(
            f"{PUSH}/api/v1/messages/send",
            json=message
        )


async def main(task_id: str, step: int):
    for progress in range(0, 101, step):
        await send_progress_message(task_id, progress)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10))
