package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Talk is one end of the pipe between the conductor and the load: one JSON
// value after another each way, in turn. It is used from one goroutine.
type Talk struct {
	in  *json.Decoder
	out *json.Encoder
}

// NewTalk talks over this pipe.
func NewTalk(in io.Reader, out io.Writer) *Talk {
	return &Talk{json.NewDecoder(in), json.NewEncoder(out)}
}

// report is what the load tells: where its service listens, then marks, each of
// which waits for a word from the conductor, then the result or an error.
type report struct {
	Listens string  `json:",omitempty"`
	Mark    string  `json:",omitempty"`
	Result  *Result `json:",omitempty"`
	Error   string  `json:",omitempty"`
}

// errLoad is what the load itself could not do.
var errLoad = errors.New("load")

// Conduct is the conductor's side of one piece of work. front is told where the
// service listens and starts the measured program; mark is called at each mark
// while the load stands still.
func (t *Talk) Conduct(plan Plan, front func(service string) (Front, error), mark func(name string) error) (Result, error) {
	if err := t.out.Encode(plan); err != nil {
		return Result{}, err
	}
	for {
		var r report
		if err := t.in.Decode(&r); err != nil {
			return Result{}, fmt.Errorf("%w: it went away: %w", errLoad, err)
		}
		var answer any = struct{}{}
		switch {
		case r.Error != "":
			var seen Result
			if r.Result != nil {
				seen = *r.Result
			}
			return seen, fmt.Errorf("%w: %s", errLoad, r.Error)
		case r.Result != nil:
			return *r.Result, nil
		case r.Listens != "":
			f, err := front(r.Listens)
			if err != nil {
				return Result{}, err
			}
			answer = f
		default:
			if err := mark(r.Mark); err != nil {
				return Result{}, err
			}
		}
		if err := t.out.Encode(answer); err != nil {
			return Result{}, err
		}
	}
}

// plan is what is to be done.
func (t *Talk) plan() (p Plan, err error) { return p, t.in.Decode(&p) }

// listens tells where the service is and learns where the program is.
func (t *Talk) listens(addr string) (f Front, err error) {
	if err := t.out.Encode(report{Listens: addr}); err != nil {
		return f, err
	}
	return f, t.in.Decode(&f)
}

// mark tells of a mark and waits until the conductor has looked.
func (t *Talk) mark(name string) error {
	if err := t.out.Encode(report{Mark: name}); err != nil {
		return err
	}
	var word struct{}
	return t.in.Decode(&word)
}

func (t *Talk) result(r Result, err error) error {
	out := report{Result: &r}
	if err != nil {
		out.Error = err.Error()
	}
	return t.out.Encode(out)
}
