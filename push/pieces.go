package push

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"
)

// pieces publishes the bytes of the body in pieces. Where the length is known
// all but the last are whole; else what has arrived goes on at once, for it may
// be long before there is more.
func (p *pipe) pieces(answer *piped) *refusal {
	buf := make([]byte, PieceSize)
	sum := sha256.New()
	for {
		n, err := p.readPiece(buf)
		if n > 0 {
			sum.Write(buf[:n])
			p.put(p.piece(answer, buf[:n]))
			if bad := p.flush(p.ctx); bad != nil {
				return bad
			}
			answer.Events++
			answer.Bytes += int64(n)
			p.c.stats.events.Add(1)
			p.c.stats.bytes.Add(uint64(n))
		}
		switch {
		case errors.Is(err, io.EOF):
			answer.SHA256 = hex.EncodeToString(sum.Sum(nil))
			return nil
		case err != nil:
			return cut(err)
		}
	}
}

func (p *pipe) readPiece(buf []byte) (n int, err error) {
	known := p.c.r.ContentLength >= 0
	for n < len(buf) && err == nil && (n == 0 || known) {
		var m int
		m, err = p.read(buf[n:])
		n += m
	}
	return n, err
}

// piece is the event of one piece. Its data is what encoding/json makes of a
// Piece, without the copies.
func (p *pipe) piece(answer *piped, b []byte) []byte {
	out := make([]byte, 0, base64.StdEncoding.EncodedLen(len(b))+192)
	out = append(out, "event: "+PieceEvent+"\ndata: {\"stream\":\""+p.id+"\",\"index\":"...)
	out = strconv.AppendInt(out, int64(answer.Events), 10)
	if p.mark.Total > 0 {
		out = append(out, ",\"total\":"...)
		out = strconv.AppendInt(out, int64(p.mark.Total), 10)
	}
	out = append(out, ",\"offset\":"...)
	out = strconv.AppendInt(out, answer.Bytes, 10)
	out = append(out, ",\"data\":\""...)
	out = base64.StdEncoding.AppendEncode(out, b)
	return append(out, "\"}\n\n"...)
}

// fileName is the name that a Content-Disposition gives a file, without any
// path, "" for none.
func fileName(disposition string) string {
	if disposition == "" {
		return ""
	}
	_, params, err := mime.ParseMediaType(disposition)
	if err != nil {
		return ""
	}
	name := path.Base("/" + strings.ReplaceAll(params["filename"], `\`, "/"))
	if name == "/" || name == "." || name == ".." || len(name) > MaxName || !utf8.ValidString(name) {
		return ""
	}
	return name
}

// mustJSON is v as JSON, where v is made of texts and numbers.
func mustJSON(v any) []byte {
	b, _ := json.Marshal(v)
	return b
}
