"""Reads one event stream with OpenAI's client for Python and prints what the application is handed, as read.mjs does.

    python read_openai.py URL [OPTIONS as JSON]

Of the options it knows method, headers, body, until and events.
"""

import json
import sys

import openai


def main(url, options="{}"):
    options = json.loads(options)
    method = options.get("method") or "GET"
    body = options.get("body")
    until, events = options.get("until"), options.get("events", 0)
    client = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
    request = openai._models.FinalRequestOptions(
        method=method.lower(),
        url=url,
        headers=options.get("headers") or {},
        json_data=json.loads(body) if body else None,
    )
    count = 0
    try:
        for chunk in client.request(object, request, stream=True, stream_cls=openai.Stream[object]):
            data = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
            print(json.dumps({"type": "message", "data": data}), flush=True)
            count += 1
            if data == until or count == events:
                return
    except Exception as error:
        line = {"error": f"{type(error).__name__}: {error}", "status": getattr(error, "status_code", None)}
        print(json.dumps(line), flush=True)


main(*sys.argv[1:])
