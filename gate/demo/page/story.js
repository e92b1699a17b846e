// What happens at the moment, in one sentence.

export function times(n) { return ['–', 'once', 'twice'][n] ?? `${n} times` }

// verdict is said at the end.
export function verdict(perfect, {words, run}) {
  if (!perfect) return 'This answer is not as it should be. Please tell us how you did it.'
  return `All ${words} words, each once and in order. The model was asked once${run.continued ? `, continued ${times(run.continued)}` : ''}.`
}

// story is said until then: s is the page's own state, opened whether its connection has come about, owner the number of
// the node that reads the model (0: none that is up), ownerId its id, also of a dead one, away whether the demo is silent.
export function story(s, {world, opened, owner, ownerId, away}) {
  const dead = s.stream && ownerId && !owner && world.run.word < world.words
  if (away) return 'The demo does not answer. Has it been ended?'
  if (s.phase === 'idle') return 'Ask the model, and then do to the connection whatever you like.'
  if (!world.nodes.some(n => n.id)) return 'No node is up. Start one: the log has what has been written.'
  if (dead) return 'The node that read the model is dead. Another takes over as soon as it is missed, in about a second.'
  if (s.phase === 'cut') return s.why ? `No use to come back: ${s.why}.` : 'You are away. The model goes on writing, and what it writes waits for you at every node.'
  if (s.phase === 'lost') return 'The connection is lost. The page comes back through another node.'
  if (!opened) return s.last ? `The page asks node ${s.node} for what follows word ${s.last}.` : `The page asks node ${s.node}.`
  if (!owner || owner === s.node) return `Node ${s.node} reads the model and hands you each word as it is written.`
  return `Node ${owner} reads the model, and node ${s.node} hands you each word as it comes from there.`
}
