package push

import (
	"cmp"
	"slices"
	"time"

	"ssegate/cluster"
)

// receipt is what is kept of a message that was taken. It is not changed once
// it is kept: what is learned later makes another one.
type receipt struct {
	ID      string          `json:"id"`
	Time    int64           `json:"time"` // Unix ms
	Targets []receiptTarget `json:"targets"`
	More    int             `json:"more,omitempty"` // targets that are not kept

	own     bool // the id is its sender's: it may come again, to others and elsewhere
	partial bool // what other nodes know could not be learned
}

type receiptTarget struct {
	Target string   `json:"target"`
	Topic  string   `json:"topic"`
	Epoch  uint64   `json:"epoch"`
	Seq    uint64   `json:"seq"`
	Time   int64    `json:"time"` // Unix ms of the node that published it there, perhaps again
	Nodes  []string `json:"nodes,omitempty"`
	Meta   []byte   `json:"meta,omitempty"`
	Again  bool     `json:"again,omitempty"` // it was there before: Nodes are not those that it was sent to
}

// maxReceiptTargets is how many targets of one message a receipt tells of.
const maxReceiptTargets = 20

func (r *receipt) add(target string, post *cluster.Outgoing, got *cluster.Receipt) {
	r.put(receiptTarget{target, post.Topic.Name, got.Pos.Epoch, got.Pos.Seq, time.Now().UnixMilli(), got.Nodes, post.Meta, got.Dup})
}

// put adds a target, unless it is there; true when the receipt says more now.
func (r *receipt) put(t receiptTarget) bool {
	i := slices.IndexFunc(r.Targets, func(had receiptTarget) bool {
		return had.Seq == t.Seq && had.Topic == t.Topic && had.Target == t.Target
	})
	switch {
	case i >= 0 && (!r.Targets[i].Again || t.Again):
		return false
	case i >= 0:
		r.Targets[i] = t
	case len(r.Targets) == maxReceiptTargets:
		r.More++
	default:
		r.Targets = append(r.Targets, t)
	}
	return true
}

// merged is all that receipts of one id say, each target once; news tells
// whether that is more than the first of them says. nil of none.
func merged(all ...*receipt) (r *receipt, news bool) {
	for _, one := range all {
		if r == nil {
			first := *one
			first.Targets = slices.Clone(one.Targets)
			r = &first
			continue
		}
		added := false
		for _, t := range one.Targets {
			added = r.put(t) || added
		}
		if added {
			r.More += one.More
		} else { // the same ones, sent again
			added = one.More > r.More
			r.More = max(r.More, one.More)
		}
		r.Time, news = min(r.Time, one.Time), news || added
	}
	return r, news
}

// byTime puts receipts into the order in which their messages were taken.
func byTime(all []*receipt) {
	slices.SortStableFunc(all, func(a, b *receipt) int { return cmp.Compare(a.Time, b.Time) })
}

// since is the receipt without what was published before that, nil if nothing is
// left.
func (r *receipt) since(t time.Time) *receipt {
	return r.only(func(to *receiptTarget) bool { return to.Time >= t.UnixMilli() })
}

// only is the receipt without the targets that see says no to, nil if none is
// left.
func (r *receipt) only(see func(*receiptTarget) bool) *receipt {
	if r == nil {
		return nil
	}
	part := *r
	part.Targets = nil
	for i := range r.Targets {
		if see(&r.Targets[i]) {
			part.Targets = append(part.Targets, r.Targets[i])
		}
	}
	if len(part.Targets) == 0 {
		return nil
	}
	return &part
}
