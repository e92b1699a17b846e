// Reads one event stream with one client library, as its documentation says, and prints what the application is handed:
// one line of JSON an event.
//
//   node read.mjs PARSER URL [OPTIONS as JSON]
//
// PARSER is openai, eventsource, eventsource-parser, fetch-event-source, sse.js or undici. The options:
//   method, headers, body   of the request; EventSources have a GET without a body
//   types                   named events to listen to besides "message", where a library asks for names
//   until, events           end after the event with this data, or after so many events
//   reconnects              how often a library that comes back by itself may do so (0)
//   hide                    after so many events the tab is hidden and shown again (fetch-event-source)
//
// A line has type, data and id where the library tells them, or retry (milliseconds), or error and perhaps status. An
// unnamed event has the type "message". What openai hands out is parsed: its data is that value as JSON again.

const [parser, url, options = '{}'] = process.argv.slice(2)
const { method = 'GET', headers = {}, body, types = [], until, events = 0, reconnects = 0, hide = 0 } = JSON.parse(options)
const request = { method, headers, body }

let count = 0
const print = (line) => process.stdout.write(JSON.stringify(line) + '\n')

// end is what everything comes to. Pipes are written at once, so nothing is left behind.
const end = () => process.exit(0)

const fail = (error, status) => {
  print({ error: String(error?.message || error), status })
  end()
}

// saw prints an event and ends the program when it was the last one wanted.
const saw = (line) => {
  print({ type: 'message', ...line })
  count++
  if ((until !== undefined && line.data === until) || count === events) end()
}

setInterval(() => {}, 60_000) // undici waits for its reconnect on a timer that does not keep Node alive

process.on('uncaughtException', (error) => fail(error)) // what a library throws where nobody can catch it

const readers = {
  async openai() {
    const { default: OpenAI } = await import('openai')
    const client = new OpenAI({ apiKey: 'none', maxRetries: 0, logLevel: 'off' })
    const stream = await client.request({
      method: method.toLowerCase(),
      path: url,
      headers,
      body: body === undefined ? undefined : JSON.parse(body),
      stream: true,
    })
    for await (const chunk of stream) saw({ data: JSON.stringify(chunk) })
  },

  async eventsource() {
    const { EventSource } = await import('eventsource')
    const fetchWith = (to, init) => fetch(to, { ...init, headers: { ...init.headers, ...headers } })
    await listen(new EventSource(url, { fetch: fetchWith }))
  },

  async undici() {
    const { Agent, EventSource } = await import('undici')
    const withHeaders = (dispatch) => (to, handler) => {
      const all = Array.isArray(to.headers) ? [...to.headers, ...Object.entries(headers).flat()] : { ...to.headers, ...headers }
      return dispatch({ ...to, headers: all }, handler)
    }
    await listen(new EventSource(url, { dispatcher: new Agent().compose(withHeaders) }))
  },

  async 'eventsource-parser'() {
    const { createParser } = await import('eventsource-parser')
    const response = await fetch(url, request)
    if (!response.ok || response.status === 204) return fail(`HTTP ${response.status}`, response.status)
    const feed = createParser({
      onEvent: ({ event, id, data }) => saw({ type: event || 'message', data, id }),
      onRetry: (retry) => print({ retry }),
      onError: (error) => print({ error: error.message }),
    })
    const decoder = new TextDecoder()
    for await (const bytes of response.body) feed.feed(decoder.decode(bytes, { stream: true }))
  },

  async 'fetch-event-source'() {
    // The least of a browser that it uses: timers, and a tab that can be hidden.
    const tab = Object.assign(new EventTarget(), { hidden: false })
    globalThis.document = tab
    globalThis.window = { fetch, setTimeout, clearTimeout }
    const show = (shown) => {
      tab.hidden = !shown
      tab.dispatchEvent(new Event('visibilitychange'))
    }
    const { fetchEventSource } = await import('@microsoft/fetch-event-source')
    let left = reconnects
    let hides = hide > 0 ? 1 : 0
    await fetchEventSource(url, {
      ...request,
      onmessage({ event, id, data, retry }) {
        saw({ type: event || 'message', data, id: id || undefined, retry })
        if (hides > 0 && count >= hide) {
          hides--
          // Not at once: the library takes an abort for an error when it has a new request by then.
          setImmediate(() => show(false))
          setTimeout(() => show(true), 50)
        }
      },
      onerror(error) {
        if (left-- <= 0) throw error
      },
    })
  },

  async 'sse.js'() {
    globalThis.CustomEvent ??= class extends Event {}
    globalThis.XMLHttpRequest = StreamedRequest
    const { SSE } = await import('sse.js')
    const source = new SSE(url, {
      method,
      headers,
      payload: body,
      autoReconnect: reconnects > 0,
      maxRetries: reconnects,
      start: false,
    })
    await new Promise((resolve) => {
      let left = reconnects
      for (const type of ['message', ...types]) {
        source.addEventListener(type, (e) => saw({ type, data: e.data, id: e.lastEventId || undefined }))
      }
      source.addEventListener('error', (e) => {
        if (left === 0) fail('stream failed', e.responseCode)
      })
      source.addEventListener('readystatechange', (e) => {
        if (e.readyState === SSE.CLOSED && left-- === 0) resolve()
      })
      source.stream()
    })
    source.close()
  },
}

// listen reads a standard EventSource until it gives up, or until it may not come back any more.
function listen(source) {
  let left = reconnects
  return new Promise((resolve) => {
    for (const type of ['message', ...types]) {
      source.addEventListener(type, (e) => saw({ type, data: e.data, id: e.lastEventId || undefined }))
    }
    source.addEventListener('error', (e) => {
      if (source.readyState === source.CLOSED) return fail(e.message || 'gave up', e.code)
      if (left-- === 0) {
        source.close()
        resolve()
      }
    })
  })
}

// StreamedRequest is as much of XMLHttpRequest as sse.js uses.
class StreamedRequest extends EventTarget {
  static HEADERS_RECEIVED = 2

  status = 0
  readyState = 0
  responseText = ''
  #headers = new Headers()
  #answer = new Headers()
  #abort = new AbortController()

  open(verb, to) {
    this.verb = verb
    this.to = to
  }

  setRequestHeader(name, value) {
    this.#headers.append(name, value)
  }

  getAllResponseHeaders() {
    return [...this.#answer].map(([name, value]) => `${name}: ${value}\r\n`).join('')
  }

  get response() {
    return this.responseText
  }

  abort() {
    this.#abort.abort()
  }

  async send(payload) {
    try {
      const response = await fetch(this.to, {
        method: this.verb,
        headers: this.#headers,
        body: payload || undefined,
        signal: this.#abort.signal,
      })
      this.status = response.status
      this.#answer = response.headers
      this.#state(StreamedRequest.HEADERS_RECEIVED)
      const decoder = new TextDecoder()
      for await (const bytes of response.body ?? []) {
        this.responseText += decoder.decode(bytes, { stream: true })
        this.dispatchEvent(new Event('progress'))
      }
      this.#state(4)
      this.dispatchEvent(new Event('load'))
    } catch (error) {
      this.dispatchEvent(new Event(error.name === 'AbortError' ? 'abort' : 'error'))
    }
  }

  #state(state) {
    this.readyState = state
    this.dispatchEvent(new Event('readystatechange'))
  }
}

try {
  if (!readers[parser]) throw new Error(`no parser ${parser}`)
  await readers[parser]()
  end()
} catch (error) {
  fail(error, error.status)
}
