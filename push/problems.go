package push

import (
	"strconv"
	"strings"
)

// A Problem is one mistake in what was sent.
type Problem struct {
	Field   string `json:"field"` // "target.user_id", "messages[3].type"
	Problem string `json:"problem"`
}

// problems gathers mistakes, so that somebody who made three of them needs one
// answer and not three.
type problems struct {
	list []Problem
	more int // not listed
}

// maxProblems is how many mistakes are listed. Whoever made more has made one
// of another kind.
const maxProblems = 16

func (p *problems) add(field, problem string) {
	if len(p.list) == maxProblems {
		p.more++
		return
	}
	p.list = append(p.list, Problem{field, problem})
}

func (p *problems) any() bool { return len(p.list) > 0 }

// String is all mistakes in one line.
func (p *problems) String() string {
	var b strings.Builder
	for i, m := range p.list {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(m.Field)
		b.WriteByte(' ')
		b.WriteString(m.Problem)
	}
	if p.more > 0 {
		b.WriteString("; and " + strconv.Itoa(p.more) + " more")
	}
	return b.String()
}

// quote repeats what somebody sent, in a form that is safe to print and short.
func quote(s string) string {
	const most = 40
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
