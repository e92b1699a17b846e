"""Reads one event stream with OpenAI's client for Python and prints what the application is handed, as read.mjs does.

    python read_openai.py URL [OPTIONS as JSON]

Of the options it knows method (GET or POST), headers, body, until and events.
"""

import json
import sys

import openai


def main(url, options="{}"):
    options = json.loads(options)
    body = options.get("body")
    until, events = options.get("until"), options.get("events", 0)
    client = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
    how = {
        "cast_to": object,
        "options": {"headers": options.get("headers") or {}},
        "stream": True,
        "stream_cls": openai.Stream[object],
    }
    count = 0
    try:
        if options.get("method") == "POST":
            chunks = client.post(url, body=json.loads(body) if body else None, **how)
        else:
            chunks = client.get(url, **how)
        for chunk in chunks:
            data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
            print(json.dumps({"type": "message", "data": data}), flush=True)
            count += 1
            if data == until or count == events:
                return
    except Exception as error:
        line = {"error": f"{type(error).__name__}: {error}", "status": getattr(error, "status_code", None)}
        print(json.dumps(line), flush=True)


main(*sys.argv[1:])
