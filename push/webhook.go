package push

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ssegate/cluster"
	"ssegate/sse"
)

const (
	// hookLook is how often a node looks for what is due.
	hookLook = 250 * time.Millisecond
	// hookTake is how many messages it takes at once, and hookPosts how many
	// of them it tells of at once.
	hookTake  = 64
	hookPosts = 8
	// hookMore is how much longer than one attempt takes a node may hold what
	// it took, before another does it again.
	hookMore = 20 * time.Second
	// maxHookPause is the longest pause between two attempts.
	maxHookPause = time.Hour
)

// webhook tells an address of messages for users that nobody got in time.
//
// A message that is taken is booked with the registry, to be looked at when
// its time has come, by whichever node comes first. Who takes items has them
// for a time, and drops them when it is done with them; if it dies they come
// back. Whatever goes wrong, the address is told rather twice than never.
type webhook struct {
	a      *API
	client *http.Client
}

// item is a message that is looked at later.
type item struct {
	Topic   string `json:"t"`
	Epoch   uint64 `json:"e"`
	Seq     uint64 `json:"s"`
	ID      string `json:"id"`
	Whole   bool   `json:"w,omitempty"` // the event's data is the envelope
	Attempt int    `json:"n,omitempty"` // that failed so far
}

func (h *webhook) init(a *API) {
	h.a = a
	h.client = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: hookPosts, IdleConnTimeout: 30 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
		},
	}
}

// book has messages to users looked at when somebody should have got them.
// Where that cannot be written, the message counts as one whose fate is not
// known: it is in the log, but if nobody comes for it nobody hears of that.
func (h *webhook) book(ctx context.Context, r *round, sendings []sending) {
	o := &r.c.opt.Webhook
	if o.URL == "" {
		return
	}
	var items [][]byte
	var results []*result
	for i := range sendings {
		s := &sendings[i]
		for j, at := range s.posts {
			if at < 0 || r.got[at].Err != nil || !strings.HasPrefix(r.posts[at].Topic.Name, "user/") {
				continue
			}
			pos := r.got[at].Pos
			items = append(items, mustJSON(item{Topic: r.posts[at].Topic.Name, Epoch: pos.Epoch, Seq: pos.Seq, ID: s.m.id, Whole: s.m.whole}))
			results = append(results, &s.results[j])
		}
	}
	if len(items) == 0 {
		return
	}
	if err := h.a.cfg.Registry.PutDue(ctx, time.Now().Add(o.After), items); err != nil {
		for _, res := range results {
			res.Status, res.Reason, res.Detail = unknown, "fate_unknown", "it is in the log, but the webhook may not hear of it"
		}
	}
}

// run looks for what is due until ctx is done.
func (h *webhook) run(ctx context.Context) error {
	defer h.client.CloseIdleConnections()
	failing := false
	for ctx.Err() == nil {
		o := h.a.opt.Load().Webhook
		if o.URL == "" {
			pause(ctx, time.Second)
			continue
		}
		n, err := h.turn(ctx, &o)
		if err != nil && !failing && ctx.Err() == nil {
			h.a.cfg.Report("webhook items cannot be read", err)
		}
		if failing = err != nil; failing {
			pause(ctx, 4*hookLook)
		} else if n < hookTake {
			pause(ctx, hookLook)
		}
	}
	return nil
}

// turn takes what is due and deals with it.
func (h *webhook) turn(ctx context.Context, o *Webhook) (taken int, err error) {
	lease := o.Timeout + h.a.opt.Load().Wait + hookMore
	now := time.Now()
	raw, err := h.a.cfg.Registry.TakeDue(ctx, now, now.Add(lease), hookTake)
	if err != nil || len(raw) == 0 {
		return 0, err
	}
	done := make([]bool, len(raw))
	var wg sync.WaitGroup
	for w := range hookPosts {
		wg.Go(func() {
			had := now // since when those that are left are held
			for i := w; i < len(raw) && ctx.Err() == nil; i += hookPosts {
				if now := time.Now(); now.Sub(had) > hookMore/2 {
					var left [][]byte
					for j := i; j < len(raw); j += hookPosts {
						left = append(left, raw[j])
					}
					if h.put(ctx, now.Add(lease), left) != nil {
						return // another node takes them
					}
					had = now
				}
				done[i] = h.item(ctx, o, raw[i])
			}
		})
	}
	wg.Wait()
	var drop, undone [][]byte
	for i := range raw {
		if done[i] {
			drop = append(drop, raw[i])
		} else {
			undone = append(undone, raw[i])
		}
	}
	if ctx.Err() == nil {
		return len(raw), h.drop(ctx, drop)
	}
	// This node goes: another one need not wait for what it leaves.
	ctx = context.WithoutCancel(ctx)
	return len(raw), errors.Join(h.drop(ctx, drop), h.put(ctx, time.Now(), undone))
}

// put has items wait, and drop strikes them off, within a bounded time.
func (h *webhook) put(ctx context.Context, at time.Time, items [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, noteWait)
	defer cancel()
	return h.a.cfg.Registry.PutDue(ctx, at, items)
}

func (h *webhook) drop(ctx context.Context, items [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, noteWait)
	defer cancel()
	return h.a.cfg.Registry.DropDue(ctx, items)
}

// item deals with what was booked. Who was told is struck off at once, so that
// nobody tells it again should this node die.
func (h *webhook) item(ctx context.Context, o *Webhook, raw []byte) (done bool) {
	var it item
	if err := json.Unmarshal(raw, &it); err != nil || it.Topic == "" {
		h.a.cfg.Report("an item of the webhook cannot be read", cmp.Or(err, errors.New("it names no topic")))
		return true
	}
	done, told := h.one(ctx, o, it)
	if told {
		_ = h.drop(ctx, [][]byte{raw}) // else with the others
	}
	return done
}

// one deals with one message: it is let go if somebody got it or if it is no
// longer there; else the address is told, now or, where that fails, later.
// done tells that the item is of no more use.
func (h *webhook) one(ctx context.Context, o *Webhook, it item) (done, told bool) {
	ask, cancel := context.WithTimeout(ctx, h.a.opt.Load().Wait)
	defer cancel()
	topic, pos := cluster.TopicOf(it.Topic), sse.Pos{Epoch: it.Epoch, Seq: it.Seq}
	frame, err := h.a.cfg.at(ask, topic.ID, pos)
	if err != nil {
		return false, false // the log is away: the item comes back
	}
	if frame == nil { // past its time, or the log forgot it
		h.a.stats.webhookFailed.Add(1)
		h.a.cfg.Report("a message was gone before the webhook could be told", fmt.Errorf("message %s", it.ID))
		return true, false
	}
	passed, err := h.a.cfg.Log.Passed(ask, topic.ID)
	if err != nil {
		return false, false
	}
	if passed.Seq >= it.Seq || h.a.cfg.Cluster.Written(ask, topic, pos, frame.Meta).Written > 0 {
		h.a.stats.webhookGot.Add(1)
		return true, false
	}
	body := envelopeOf(&it, frame)
	err = h.post(ctx, o, &it, body)
	if err == nil {
		h.a.stats.webhookDone.Add(1)
		return true, true
	}
	if ctx.Err() != nil {
		return false, false
	}
	h.a.stats.webhookRetried.Add(1)
	if it.Attempt++; it.Attempt >= o.Attempts {
		h.a.stats.webhookFailed.Add(1)
		h.a.cfg.Report("the webhook was not told of a message", fmt.Errorf("message %s, %d attempts: %w", it.ID, it.Attempt, err))
		return true, false
	}
	next := time.Now().Add(min(o.Retry<<min(it.Attempt-1, 12), maxHookPause))
	return h.put(ctx, next, [][]byte{mustJSON(it)}) == nil, false
}

// envelopeOf is what the webhook is told: the envelope as it was sent, or one
// that is made of what the event says where the data alone is kept.
func envelopeOf(it *item, f *sse.Frame) []byte {
	d := sse.NewDecoder(len(f.Block) + 1)
	d.Feed(f.Block)
	var ev sse.Event
	if ok, _ := d.Next(&ev); !ok {
		return nil
	}
	data := slices.Clone(ev.Data)
	if it.Whole {
		return data
	}
	if !json.Valid(data) {
		data = mustJSON(string(data))
	}
	_, user, _ := strings.Cut(it.Topic, "/")
	return mustJSON(struct {
		ID        string            `json:"id"`
		Timestamp string            `json:"timestamp"`
		Type      string            `json:"type,omitempty"`
		Target    map[string]string `json:"target"`
		Data      json.RawMessage   `json:"data"`
	}{it.ID, time.UnixMilli(f.Time).UTC().Format(timeFormat), string(ev.Name), map[string]string{"user_id": user}, data})
}

// post tells the address of a message. Only a 2xx counts.
//
// Ssegate-Signature is "t=<Unix seconds>,v1=<hex>": the HMAC-SHA256 of the
// seconds, a dot and the body, by the secret.
func (h *webhook) post(ctx context.Context, o *Webhook, it *item, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "ssegate")
	req.Header.Set("Idempotency-Key", headerText(it.ID))
	req.Header.Set("Ssegate-Topic", headerText(it.Topic))
	req.Header.Set("Ssegate-Attempt", strconv.Itoa(it.Attempt+1))
	if o.Secret != "" {
		at := strconv.FormatInt(time.Now().Unix(), 10)
		req.Header.Set("Ssegate-Signature", "t="+at+",v1="+Sign(o.Secret, at, body))
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return withoutAddress(err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("it answered %d", resp.StatusCode)
	}
	return nil
}

// Sign is the signature of a webhook's body that was sent at these Unix
// seconds, in hex.
func Sign(secret, at string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	io.WriteString(mac, at)
	mac.Write([]byte{'.'})
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// headerText is a text as a header can have it, for ids and topics may have any
// letters: what is not a visible character of ASCII, and the percent sign, is
// percent-encoded.
func headerText(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// withoutAddress is an error of the client without the address, which may have
// a secret in it.
func withoutAddress(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
