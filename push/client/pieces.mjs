// Puts streams of bytes together again that ssegate sends in pieces.
//
//   import { attach } from "./pieces.mjs";
//   attach(eventSource, file => show(file.name, new Blob([file.data], { type: file.type })),
//          error => console.warn(error));
//
// It checks that no piece is missing, that they are in order, and how many
// there are; with `crypto.subtle` (pages of https and localhost) the digest is
// yours to check: file.sha256 is what the publisher's node counted.

export class Reassembler {
  // most: bytes of one stream; open: streams under way.
  constructor({ most = 64 << 20, open = 16 } = {}) {
    this.most = most;
    this.open = open;
    this.files = new Map();
  }

  // take takes the data of an event of one of these names, and returns a file
  // { stream, type, name, data, sha256 } when that was the last of it, else
  // null. It throws when something is wrong with a stream, which is given up
  // then; the others go on.
  take(event, text) {
    const said = JSON.parse(text);
    const file = this.files.get(said.stream);
    if (event === "ssegate.piece") {
      if (file) this.#piece(file, said);
      return null;
    }
    if (event !== "ssegate.stream" || said.kind !== "pieces") return null;
    if (said.state === "begin" && !file) {
      if (this.files.size >= this.open) throw new Error(`stream ${said.stream}: too many are under way`);
      if (said.bytes > this.most) throw new Error(`stream ${said.stream}: ${said.bytes} bytes are too many`);
      this.files.set(said.stream, { stream: said.stream, type: said.content_type, name: said.name, pieces: [], bytes: 0 });
      return null;
    }
    if (!file) return null; // its beginning was not seen
    if (said.state === "cut") this.#fail(file, "cut by its publisher");
    if (said.state !== "end") return null;
    if ((said.total ?? 0) !== file.pieces.length || (said.bytes ?? 0) !== file.bytes) {
      this.#fail(file, `${file.pieces.length} pieces of ${said.total ?? 0} came`);
    }
    this.files.delete(file.stream);
    const data = new Uint8Array(file.bytes);
    let at = 0;
    for (const p of file.pieces) {
      data.set(p, at);
      at += p.length;
    }
    return { stream: file.stream, type: file.type, name: file.name, data, sha256: said.sha256 };
  }

  #piece(file, said) {
    if (said.index < file.pieces.length) return; // it came again
    if (said.index > file.pieces.length || said.offset !== file.bytes) {
      this.#fail(file, `piece ${said.index} came where ${file.pieces.length} should`);
    }
    const bytes = Uint8Array.from(atob(said.data), c => c.charCodeAt(0));
    if (file.bytes + bytes.length > this.most) this.#fail(file, `more than ${this.most} bytes`);
    file.pieces.push(bytes);
    file.bytes += bytes.length;
  }

  #fail(file, why) {
    this.files.delete(file.stream);
    throw new Error(`stream ${file.stream}: ${why}`);
  }
}

// attach has an EventSource's streams put together.
export function attach(source, onFile, onError = () => {}, options = {}) {
  const r = new Reassembler(options);
  for (const name of ["ssegate.stream", "ssegate.piece"]) {
    source.addEventListener(name, e => {
      try {
        const file = r.take(name, e.data);
        if (file) onFile(file);
      } catch (err) {
        onError(err);
      }
    });
  }
  return r;
}
