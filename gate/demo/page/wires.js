// The wires between you, the nodes and the model: all that could be, and brighter those that carry the answer.

const svg = 'http://www.w3.org/2000/svg'

// drawWires draws for serves (number of the node that you are connected to), reads (that reads the model), both 0 for
// nobody, and up (numbers). What flows, flows from the model to you.
export function drawWires(stage, {serves, reads, up}) {
  const wires = stage.querySelector('.wires')
  const at = stage.getBoundingClientRect()
  const box = e => {
    const r = e.getBoundingClientRect()
    return {left: r.left - at.left, right: r.right - at.left, top: r.top - at.top, middle: r.top - at.top + r.height / 2, height: r.height}
  }
  const you = box(stage.querySelector('.you'))
  const model = box(stage.querySelector('.model'))
  const nodes = [...stage.querySelectorAll('.node')].map(box)
  const flows = serves && reads

  for (const n of [1, 2, 3]) {
    const here = nodes[n - 1]
    const spread = (n - 2) * 12 // so that three ends do not fall into one
    draw(`to-you-${n}`, curve(here.left, here.middle, you.right, you.middle + spread), n, up.includes(n), serves === n, flows)
    draw(`from-model-${n}`, curve(model.left, model.middle + spread, here.right, here.middle), n, up.includes(n), reads === n, true)
  }
  const [a, b] = [nodes[reads - 1], nodes[serves - 1]]
  const across = flows && reads !== serves
  draw('bus', across ? around(a, b) : '', reads, across, across, true)

  function draw(name, d, n, there, on, moves) {
    let path = wires.querySelector(`[data-name=${name}]`)
    if (!path) {
      path = wires.appendChild(document.createElementNS(svg, 'path'))
      path.dataset.name = name
    }
    path.setAttribute('d', there ? d : '')
    path.setAttribute('class', `n${n} ${on ? 'on' : ''} ${on && moves ? 'flows' : ''}`)
  }
}

function curve(x1, y1, x2, y2) {
  const bend = (x2 - x1) / 2
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`
}

// around leads from one node to another, past what stands between them.
function around(from, to) {
  const dy = Math.sign(to.middle - from.middle)
  const y1 = from.middle + dy * from.height / 4, y2 = to.middle - dy * to.height / 4
  return `M${from.right} ${y1}c26 ${dy * 8} 26 ${y2 - y1 - dy * 8} 0 ${y2 - y1}`
}
