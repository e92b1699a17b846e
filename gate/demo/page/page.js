// The page of the demo: it asks the model through a node, comes back through another when a connection is gone, and
// keeps account of every event. What it does, any client of an event stream can do.

import {viaEventSource, viaFetch} from './stream.js'
import {story, times, verdict} from './story.js'
import {drawWires} from './wires.js'

const $ = id => document.getElementById(id)
const numbers = [1, 2, 3]
const kept = 'ssegate-demo'

// s is what a reload must not forget: which answer, how far, and what has come.
const s = Object.assign(blank(), JSON.parse(sessionStorage.getItem(kept) ?? '{}'))

function blank() {
  return {
    chosen: {mode: 'eventsource', pace: '150'}, // for the next answer
    run: '', mode: '', pace: '',
    phase: 'idle', // idle, linked, lost (comes back by itself), cut (by the person), done
    node: 1, lastId: '', stream: '', last: 0, lost: 0, repeated: 0, said: '',
    troubles: 0, why: '', // since the last connection that came about
    cells: {}, // n: {node, late, wrong, word}
    hoping: [], tried: [], log: [],
  }
}

// What the page is told by the demo and by the nodes.
let world = null // {words, nodes: [{number, id, port}], run: {started, continued, word}}
let clockAhead = 0 // of the demo's clock, in ms
let owner = 0 // number of the node that reads the model, 0: nobody that is up
let ownerId = ''

let link = null // the connection: {number, close, since, opened, late}
let turns = 0 // of connections: what an old one still says is not heard
let killed = 0 // when the owner was killed
let again // timer

const node = number => world.nodes[number - 1]
const up = number => node(number).id !== ''
const address = number => `http://${location.hostname}:${node(number).port}`
const serverNow = () => Date.now() + clockAhead
const next = from => numbers.map(i => (from + i - 1) % 3 + 1).find(up) // the first that is up behind from

function save() { sessionStorage.setItem(kept, JSON.stringify(s)) }

// --- asking, leaving, coming back

function ask(number) {
  if (s.stream && s.phase !== 'done') stopModel()
  leave()
  const {chosen, tried, log} = s
  Object.assign(s, blank(), {chosen, tried, log}, chosen)
  s.run = Array.from(crypto.getRandomValues(new Uint8Array(8)), b => 'abcdefghijklmnopqrstuvwxyz234567'[b & 31]).join('')
  owner = killed = 0
  ownerId = ''
  world.run = {started: 0, continued: 0, word: 0}
  ledger()
  listen()
  note(`asked node ${number} ${s.mode === 'post' ? 'with POST' : 'as EventSource'}`, number)
  connect(number)
}

// stopModel says that the answer is not wanted any more, which is not the same as going away.
function stopModel() {
  const number = up(s.node) ? s.node : next(s.node)
  if (number) fetch(`${address(number)}/_ssegate/streams/${s.stream}`, {method: 'DELETE'}).catch(() => {})
}

// connect asks a node for what follows the last id: the same request again, or, after a reload, the stream by its name.
function connect(number, byName = false) {
  const turn = ++turns
  const heard = f => (...args) => { if (turn === turns) f(...args) }
  const on = {open: heard(opened), event: heard(receive), gone: heard(gone)}
  s.phase = 'linked'
  s.node = number
  link = {number, since: serverNow(), began: performance.now(), opened: false, late: 0}
  const at = address(number)
  const query = new URLSearchParams({run: s.run, pace: s.pace})
  const headers = s.lastId ? {Accept: 'text/event-stream', 'Last-Event-ID': s.lastId} : {Accept: 'text/event-stream'}
  if (s.mode === 'eventsource') {
    if (s.lastId) query.set('lastEventId', s.lastId) // a new EventSource cannot be given a header
    link.close = viaEventSource(`${at}/answer?${query}`, on)
  } else if (byName && s.stream) {
    link.close = viaFetch(`${at}/_ssegate/streams/${s.stream}`, {headers}, on)
  } else {
    headers['Content-Type'] = 'application/json'
    link.close = viaFetch(`${at}/answer`, {method: 'POST', headers, body: JSON.stringify({run: s.run, pace: Number(s.pace)})}, on)
  }
  save()
  render()
}

function leave() {
  clearTimeout(again)
  turns++
  link?.close()
  link = null
}

function cut() {
  leave()
  s.phase = 'cut'
  s.why = ''
  hope('cut')
  note(`you cut the connection after word ${s.last}`)
  save()
  render()
}

function comeBack(number, byName = false) {
  connect(number, byName)
  link.back = `back at node ${number} behind word ${s.last}`
}

function hop(number) {
  const from = s.node
  leave()
  if (number !== from) hope('hop')
  note(`hopped from node ${from} to node ${number} behind word ${s.last}`, number)
  connect(number)
}

// gone is told when the connection has broken: as EventSource would, the page comes back, and as behind a load
// balancer, through another node.
function gone(why, refused = false) {
  const from = s.node
  if (why !== s.why) note(`connection to node ${from} lost: ${why}`, from, refused ? 'bad' : '')
  leave()
  s.phase = refused ? 'cut' : 'lost'
  s.why = why
  s.troubles++
  save()
  if (refused) return render()
  render()
  again = setTimeout(retry, Math.min(250 * s.troubles, 1500) + 250 * Math.random())
}

function retry() {
  const number = next(s.node)
  if (number) return comeBack(number)
  again = setTimeout(retry, 300)
  render()
}

// --- what comes

function opened(stream) {
  link.opened = true
  if (link.back) note(link.back, link.number)
  s.troubles = 0
  s.why = ''
  named(stream)
  render()
}

function named(stream) {
  if (stream && stream !== s.stream) s.stream = stream
}

function receive(id, type, data) {
  if (type !== 'message') {
    s.said = type // a gap or an error: what may not happen here
    note(`${type}: ${data}`, 0, 'bad')
    return render()
  }
  if (id) s.lastId = id
  if (data === '[DONE]') return finish()
  const {n, word, at} = JSON.parse(data)
  const late = at < link.since // written while the page was away
  account(n, word, late)
  if (late) {
    link.late++
    link.caughtUp = performance.now()
    clearTimeout(link.tell)
    link.tell = setTimeout(madeUp, 150, link)
  }
  fulfil(at)
  if (s.mode === 'eventsource' && !s.stream) askName()
  save()
  render()
}

// account gives an event its cell. Each cell is to be filled once, and in order.
function account(n, word, late) {
  const had = s.cells[n]
  if (had?.word !== undefined) {
    s.repeated++
    had.wrong = true
  } else {
    for (let k = s.last + 1; k < n; k++) {
      s.lost++
      s.cells[k] = {wrong: true}
      paint(k)
    }
    s.cells[n] = {node: s.node, late, word, wrong: had?.wrong}
  }
  s.last = Math.max(s.last, n)
  paint(n, true)
}

function madeUp(of) {
  const words = of.late === 1 ? '1 missed word' : `${of.late} missed words`
  note(`${words} from node ${of.number}, ${Math.max(1, Math.round(of.caughtUp - of.began))} ms after asking`, of.number)
}

// askName finds the stream's name, which is in a header that EventSource does not show.
let asking = false
async function askName() {
  if (asking) return
  asking = true
  const stop = new AbortController()
  try {
    const query = new URLSearchParams({run: s.run, pace: s.pace, lastEventId: s.lastId})
    const answer = await fetch(`${address(s.node)}/answer?${query}`, {headers: {Accept: 'text/event-stream'}, signal: stop.signal})
    if (query.get('run') === s.run) named(answer.headers.get('Ssegate-Stream'))
  } catch { // the next event asks again
  } finally {
    stop.abort()
    asking = false
  }
  look()
}

function finish() {
  leave()
  s.phase = 'done'
  const whole = s.last === world.words && !s.lost && !s.repeated
  note(whole ? 'the answer is whole' : 'the answer has ended, and is not whole', 0, whole ? 'good' : 'bad')
  save()
  render()
  look()
}

// --- things to try: hoped for when begun, ticked off when the answer has gone on without a flaw

function hope(what) {
  if (!s.hoping.includes(what)) s.hoping.push(what)
}

function fulfil(at) {
  if (s.lost || s.repeated) return
  s.hoping = s.hoping.filter(what => {
    if (what === 'kill' && at < killed + 100) return true // an event that was on its way
    if (!s.tried.includes(what)) s.tried.push(what)
    return false
  })
}

// --- what the demo and the nodes say

let told
let away = false // the demo does not answer
function listen() {
  told?.close()
  told = new EventSource(`/demo/state?run=${s.run}`)
  told.onmessage = e => {
    const first = !world
    world = JSON.parse(e.data)
    away = false
    clockAhead = world.now - Date.now()
    if (first) {
      terminal()
      begin()
    }
    render()
  }
  told.onerror = () => {
    away = true
    render()
  }
}

// begin goes on where the page was before it was loaded.
function begin() {
  if (s.run && !world.run.started && s.last) Object.assign(s, blank()) // of a demo that is no more
  ledger()
  const number = up(s.node) ? s.node : next(s.node)
  if (s.phase === 'linked' || s.phase === 'lost') {
    hope('reload')
    note(`page loaded again behind word ${s.last}`)
    s.phase = 'lost'
    if (!number) return retry()
    comeBack(number, true)
  } else if (s.phase === 'cut') {
    note(`page loaded again, still cut behind word ${s.last}`)
  }
}

function terminal() {
  $('curl').textContent = `curl -N \\
  '${address(1)}/answer?run=me'

curl -N -H 'Last-Event-ID: me.20' \\
  '${address(2)}/answer?run=me'`
}

// look asks any node who reads the model for this stream.
async function look() {
  if (!s.stream || !world) return
  const number = up(s.node) ? s.node : next(s.node)
  if (!number) return
  const stream = s.stream
  try {
    const answer = await fetch(`${address(number)}/_ssegate/streams/${stream}/status`, {signal: AbortSignal.timeout(1500)})
    if (!answer.ok) return
    const status = await answer.json()
    if (stream !== s.stream) return
    if (status.owner !== ownerId) {
      const now = world.nodes.find(n => n.id === status.owner)?.number ?? 0
      if (ownerId && now) note(`node ${now} took over and reads the model`, now)
      ownerId = status.owner
    }
  } catch { // it is asked again soon
  }
  render()
}
setInterval(() => { if (s.phase !== 'idle' && s.phase !== 'done') look() }, 500)

async function command(number, what) {
  const answer = await fetch(`/demo/nodes/${number}/${what}`, {method: 'POST'}).catch(e => ({ok: false, text: async () => e.message}))
  if (!answer.ok) return note(`node ${number}: ${(await answer.text()).trim()}`, number, 'bad')
}

function kill(number) {
  const roles = [link?.number === number && 'serves you', owner === number && 'reads the model'].filter(Boolean)
  note(`you killed node ${number}${roles.length ? ', which ' + roles.join(' and ') : ''}`, number)
  if (owner === number && s.phase !== 'done') {
    killed = serverNow()
    hope('kill')
  }
  command(number, 'kill')
}

function start(number) {
  note(`you started node ${number}`, number)
  command(number, 'start')
}

function note(text, number = 0, mood = '') {
  s.log.unshift({at: Date.now(), text, number, mood})
  s.log.length = Math.min(s.log.length, 80)
  save()
  writeLog()
}

// --- what is seen

function el(tag, className, text) {
  const e = document.createElement(tag)
  if (className) e.className = className
  if (text !== undefined) e.textContent = text
  return e
}

const clock = new Intl.DateTimeFormat('en-GB', {hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 1})

function writeLog() {
  $('log').replaceChildren(...s.log.map(entry => {
    const li = el('li', entry.number ? `n${entry.number}` : '')
    li.append(el('time', '', clock.format(entry.at)), el('i'), el('span', entry.mood, entry.text))
    return li
  }))
}

// ledger makes the cells and writes the words that have come already.
function ledger() {
  $('ledger').replaceChildren(...Array.from({length: world.words}, (_, i) => el('li', 'cell', i + 1)))
  $('prose').replaceChildren()
  waiting.clear()
  for (const n of Object.keys(s.cells).map(Number)) paint(n)
}

const waiting = new Set() // cells that look as if their words were written but not here

function paint(n, fresh = false) {
  const cell = $('ledger').children[n - 1]
  const {node: number, late, word, wrong} = s.cells[n]
  const look = [number && `n${number}`, late && 'late', wrong && 'wrong'].filter(Boolean).join(' ')
  cell.className = `cell ${look}${fresh ? ' fresh' : ''}`
  cell.title = word === undefined ? `${n}: lost` : `${n}: ${word}, from node ${number}${late ? ', caught up' : ''}`
  waiting.delete(n)
  $('prose').append(el('span', look, word ?? `[${n} lost]`), ' ')
}

function render() {
  if (!world) return
  const {run} = world
  for (let n = s.last + 1; n <= run.word; n++) {
    if (waiting.has(n)) continue
    waiting.add(n)
    $('ledger').children[n - 1].classList.add('waits')
  }
  owner = world.nodes.find(n => n.id && n.id === ownerId)?.number ?? 0
  const running = s.phase === 'linked' || s.phase === 'lost' || s.phase === 'cut'
  const any = numbers.some(up)

  text('link', {
    idle: 'not connected',
    linked: link?.opened ? `connected to node ${s.node}` : `asks node ${s.node}`,
    lost: any ? 'connection lost, comes back' : 'no node is up',
    cut: s.why ? 'refused' : 'cut by you',
    done: 'has the answer',
  }[s.phase])
  $('you').className = `card you ${link ? `n${s.node}` : ''}`
  $('link').className = `status ${s.phase === 'lost' ? 'bad' : ''}`
  text('last-id', s.lastId || 'none')
  text('stream', s.stream || 'none')
  $('stream').title = s.stream

  text('model-state', !run.word && !run.started ? 'waits' : run.word === world.words ? 'has written all'
    : running && ownerId && !owner ? `waits at word ${run.word}` : `writes word ${run.word + 1}`)
  $('model').className = `card model ${owner && running ? `n${owner}` : ''}`
  text('started', times(run.started))
  text('continued', times(run.continued))

  for (const n of numbers) {
    const card = $('nodes').children[n - 1]
    const serves = link?.opened && link.number === n
    const reads = owner === n && s.phase !== 'idle' && run.word < world.words
    card.className = `card node n${n} ${serves ? 'serves' : ''} ${reads ? 'reads' : ''} ${up(n) ? '' : 'off'}`
    card.querySelector('.what').textContent = `${location.hostname}:${node(n).port}`
    card.querySelector('.what').title = node(n).id
    const hopTo = card.querySelector('.hop')
    hopTo.textContent = {idle: 'Ask here', done: 'Ask here', cut: 'Come back'}[s.phase] ?? 'Hop here'
    hopTo.disabled = !up(n) || link?.number === n
    card.querySelector('.kill').textContent = up(n) ? 'Kill' : 'Start'
  }

  $('ask').disabled = !any
  text('ask', s.phase === 'idle' ? 'Ask the model' : 'Ask again')
  $('ask').classList.toggle('primary', !running)
  $('cut').classList.toggle('primary', s.phase === 'cut')
  $('cut').disabled = !running || s.phase === 'lost' || s.phase === 'cut' && !any
  text('cut', s.phase === 'cut' ? 'Come back' : 'Cut the connection')

  const received = Object.values(s.cells).filter(c => c.word !== undefined).length
  text('received', received)
  text('total', world.words)
  text('lost', s.lost)
  text('repeated', s.repeated)
  text('runs', run.started)
  text('goes-on', run.continued)
  bad('lost', s.lost)
  bad('repeated', s.repeated)
  bad('runs', run.started > 1)
  $('prose').classList.toggle('live', running)
  for (const li of $('try').children) li.classList.toggle('done', s.tried.includes(li.dataset.try))

  const perfect = received === world.words && !s.lost && !s.repeated && !s.said && run.started === 1
  const over = s.phase === 'done' || s.said
  $('story').className = `story ${over ? perfect ? 'good' : 'wrong' : ''}`
  text('story', over ? verdict(perfect, world) : story(s, {world, opened: link?.opened, owner, ownerId, away}))
  drawWires($('nodes').closest('.stage'), {
    serves: link?.opened ? link.number : 0,
    reads: running && owner && run.word < world.words ? owner : 0,
    up: numbers.filter(up),
  })
}

function text(id, value) {
  value = String(value)
  if ($(id).textContent !== value) $(id).textContent = value
}

function bad(id, is) { $(id).parentElement.classList.toggle('wrong', Boolean(is)) }

// --- buttons

for (const n of numbers) {
  const card = $('node').content.cloneNode(true)
  card.querySelector('.name').textContent = `Node ${n}`
  card.querySelector('.hop').onclick = () => s.phase === 'idle' || s.phase === 'done' ? ask(n) : s.phase === 'cut' ? comeBack(n) : hop(n)
  card.querySelector('.kill').onclick = () => up(n) ? kill(n) : start(n)
  $('nodes').append(card)
}
$('ask').onclick = () => ask(up(s.node) ? s.node : next(s.node))
$('cut').onclick = () => s.phase === 'cut' ? comeBack(up(s.node) ? s.node : next(s.node)) : cut()
$('reload').onclick = () => location.reload()
for (const name of ['mode', 'pace']) {
  for (const input of $(name).querySelectorAll('input')) {
    input.checked = input.value === s.chosen[name]
    input.onchange = () => { s.chosen[name] = input.value; save() }
  }
}
addEventListener('resize', render)
addEventListener('beforeunload', () => { turns++ }) // what breaks now is not lost: it is left
addEventListener('pageshow', e => { if (e.persisted) location.reload() })
writeLog()
listen()
