// Two ways to read an event stream. Each takes on = {open(stream), event(id, type, data), gone(why, refused)} and returns a
// function that closes the connection; gone is told once, when it ends in any other way, with refused = true when it is
// of no use to come back.

const control = ['ssegate.gap', 'ssegate.error'] // what ssegate itself has to say

export function viaEventSource(url, on) {
  const source = new EventSource(url)
  source.onopen = () => on.open('')
  source.onmessage = e => on.event(e.lastEventId, 'message', e.data)
  for (const type of control) source.addEventListener(type, e => on.event(e.lastEventId, type, e.data))
  source.onerror = () => {
    source.close() // it would come back by itself, but to the same node
    on.gone('it broke')
  }
  return () => source.close()
}

export function viaFetch(url, init, on) {
  const stop = new AbortController()
  read().catch(e => { if (!stop.signal.aborted) on.gone(e.message) })
  return () => stop.abort()

  async function read() {
    const answer = await fetch(url, {...init, signal: stop.signal, cache: 'no-store'})
    if (answer.status !== 200) return on.gone(`it answered ${answer.status}`, answer.status >= 400 && answer.status < 500)
    on.open(answer.headers.get('Ssegate-Stream') ?? '')
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
    const feed = parser(on.event)
    for (;;) {
      const {done, value} = await reader.read()
      if (stop.signal.aborted) return
      if (done) return on.gone('it ended before the answer did', true) // cleanly: there is nothing more to come
      feed(value)
    }
  }
}

// parser returns a function that takes text as it comes and calls emit(id, type, data) for every event in it.
function parser(emit) {
  let rest = '', id = '', type = '', data = []
  return text => {
    rest += text
    for (let end; (end = /\r\n?|\n/.exec(rest)) && (end[0] !== '\r' || end.index + 1 < rest.length);) { // a last CR may be half a CRLF
      const line = rest.slice(0, end.index)
      rest = rest.slice(end.index + end[0].length)
      take(line)
    }
  }

  function take(line) {
    if (line === '') {
      if (data.length) emit(id, type || 'message', data.join('\n'))
      type = ''
      data = []
      return
    }
    const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line)
    if (name === 'data') data.push(value ?? '')
    else if (name === 'event') type = value ?? ''
    else if (name === 'id' && !value?.includes('\0')) id = value ?? ''
  }
}
