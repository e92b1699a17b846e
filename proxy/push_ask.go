package proxy

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"ssegate/auth"
	"ssegate/cluster"
	"ssegate/push"
	"ssegate/reconnect"
)

// badField says what is wrong with one field of the request: a part of the path
// or a parameter.
func badField(name, what string) *refusal { return badRequest("bad_"+name, name+" "+what) }

// checkName says what is wrong with a name, nil for nothing.
func checkName(field, name string) *refusal {
	if _, wrong := push.ParsePlace(string(push.User) + "/" + name); wrong != "" {
		return badField(field, wrong)
	}
	return nil
}

// topicsOf reads the topics that a path names; most is how many it may.
func (x *exchange) topicsOf(most int) (topics []string, bad *refusal) {
	rest, ok := strings.CutPrefix(x.path, x.route.Path+"/")
	if !ok && x.path != x.route.Path {
		return nil, &refusal{http.StatusNotFound, "no_such_path", "spell the path " + x.route.Path + "/… without dots and escapes"}
	}
	if !ok {
		rest = ""
	}
	names, err := url.PathUnescape(rest)
	what, kind := "user_id", push.User
	switch x.route.serve {
	case followChannel:
		what, kind = "channel", push.Channel
	case followService:
		what, kind = "service", push.Service
	}
	if err != nil {
		return nil, badField(what, "is not well escaped")
	}
	if names == "" {
		return nil, badField(what, "is missing: the path goes on with it, "+x.route.Path+"/…")
	}
	if x.route.serve != followChannel {
		return []string{push.Place{Kind: kind, Name: names}.String()}, checkName(what, names)
	}
	for name := range strings.SplitSeq(names, ",") {
		if bad := checkName(what, name); bad != nil {
			return nil, bad
		}
		if topic := (push.Place{Kind: kind, Name: name}).String(); !slices.Contains(topics, topic) {
			if topics = append(topics, topic); len(topics) > most {
				return nil, badField(what, fmt.Sprintf("names more than %d topics", most))
			}
		}
	}
	return topics, nil
}

// wants is what a subscriber's query asks for. Parameters that we do not know
// are ignored, since polyfills add some.
type wants struct {
	session, kb, task string    // what narrows; "" for nothing
	last              int       // events to begin with; 0: none
	since             time.Time // or those since then; zero: none
}

func (x *exchange) wants() (w wants, bad *refusal) {
	seen := map[string]string{}
	for part := range strings.SplitSeq(x.query, "&") {
		k, v, _ := strings.Cut(part, "=")
		switch k {
		case "session_id", "kb_id", "task_id", "last", "since":
		default:
			continue
		}
		value, err := url.QueryUnescape(v)
		if err != nil {
			return w, badField(k, "is not well escaped")
		}
		if value == "" { // it may be meant to say something, and would say nothing
			return w, badField(k, "is empty: give it a value or leave it out")
		}
		if had, twice := seen[k]; twice && had != value {
			return w, badField(k, "is given twice")
		}
		seen[k] = value
	}
	for name, to := range map[string]*string{"session_id": &w.session, "kb_id": &w.kb, "task_id": &w.task} {
		if *to = seen[name]; *to != "" {
			if bad := checkName(name, *to); bad != nil {
				return w, bad
			}
		}
	}
	if v := seen["last"]; v != "" {
		n, err := strconv.ParseUint(v, 10, 31)
		if err != nil {
			return w, badField("last", "is no number of events")
		}
		w.last = int(n)
	}
	if v := seen["since"]; v != "" {
		t, ok := parseSince(v)
		if !ok {
			return w, badField("since", "is neither a time such as 2026-01-31T12:00:00Z nor milliseconds since 1970")
		}
		if w.last > 0 {
			return w, badField("since", "and last ask for different things: give one of them")
		}
		w.since = t
	}
	return w, nil
}

// parseSince reads a time of RFC 3339 or Unix milliseconds. The plus of a zone
// is a space where nobody escaped it.
func parseSince(s string) (t time.Time, ok bool) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.UnixMilli(ms), ms >= 0 && ms < 1<<47
	}
	t, err := time.Parse(time.RFC3339, strings.Replace(s, " ", "+", 1))
	return t, err == nil && t.UnixMilli() >= 0
}

const needTopic = "topic is needed: that of id, or all topics of its connection; or the connection, while it is on this node"

// acknowledged are the topics of the id that a client acknowledges. What the
// body says of them must be true, also where nobody has to be asked for leave.
func (st *streams) acknowledged(in *ack, who *auth.Identity) (topics []cluster.Topic, bad *refusal) {
	at, err := reconnect.ParseEdgeID([]byte(in.ID))
	several := err != nil // such an id says nothing of its topics, until it is read with them
	if _, err := reconnect.ParseCursor([]byte(in.ID)); several && err != nil {
		return nil, badRequest("bad_id", "id is not the id of an event from here")
	}
	for i, name := range append([]string{in.Topic}, in.Topics...) {
		if _, wrong := push.ParsePlace(name); wrong != "" && (i > 0 || name != "") {
			return nil, badRequest("bad_topic", "topic "+wrong)
		}
	}
	names := in.Topics
	if names == nil {
		names = st.topicsOf(in.Connection)
	}
	silent := in.Topics == nil && in.Topic == "" // of the topics
	switch {
	case several || names != nil:
	case in.Topic != "":
		names = []string{in.Topic}
	default:
		names = []string{push.Place{Kind: push.User, Name: who.Subject}.String()}
	}
	if in.Topic != "" && (!slices.Contains(names, in.Topic) || !several && cluster.TopicOf(in.Topic).ID != at.Stream) {
		return nil, badRequest("bad_topic", needTopic)
	}
	for _, name := range names {
		topic := cluster.TopicOf(name)
		switch {
		case !several && topic.ID != at.Stream:
		case !who.MayFollow(name):
			return nil, &refusal{http.StatusForbidden, "forbidden", "whoever this is may not follow " + name}
		default:
			topics = append(topics, topic)
		}
	}
	if len(topics) == 0 && !several && silent && in.Connection == "" && who.MayFollow(string(auth.Everything)) {
		topics = []cluster.Topic{{ID: at.Stream}}
	}
	if len(topics) == 0 {
		return nil, badRequest("bad_topic", needTopic)
	}
	return topics, nil
}
