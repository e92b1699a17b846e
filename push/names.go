package push

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxName is how long the name of a user, channel, service, connection,
// session, knowledge base or task may be, and a message's id: bytes.
const MaxName = 200

// A Kind is what a topic is named after: its first part.
type Kind string

// The kinds of topics. A connection is a target only: what is for one goes
// through a topic that it follows.
const (
	User       Kind = "user"
	Channel    Kind = "channel"
	Service    Kind = "service"
	Connection Kind = "connection"
)

// topic is the whole name of a topic.
func (k Kind) topic(name string) string { return string(k) + "/" + name }

// wrongName says what is wrong with a name of MaxName bytes at most, "" if
// nothing is. What has a meaning in paths, in lists and in patterns cannot be
// in a name, so that nobody is reached whom its sender did not mean.
func wrongName(s string) string {
	switch {
	case s == "":
		return "is empty"
	case s == "." || s == "..":
		return "is " + s + ", which no name may be: in an address it is a way"
	case len(s) > MaxName:
		return "is longer than " + strconv.Itoa(MaxName) + " bytes"
	case !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError):
		return "is not UTF-8"
	}
	for _, r := range s {
		switch {
		case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
			return "has a control character"
		case r == '/' || r == '*' || r == ',' || r == '?' || r == '#':
			return "has a " + string(r) + ", which no name may have"
		}
	}
	if strings.TrimSpace(s) != s {
		return "begins or ends with a space"
	}
	return ""
}

// wrongID says what is wrong with a message's id, "" if nothing is.
func wrongID(s string) string {
	switch {
	case s == "":
		return "is empty: leave it out, and one is made"
	case len(s) > MaxName:
		return "is longer than " + strconv.Itoa(MaxName) + " bytes"
	case !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError):
		return "is not UTF-8"
	case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }):
		return "has a control character"
	}
	return ""
}

// A Place is somebody or something that messages are for: user/alice,
// channel/news, service/billing or connection/c1.
type Place struct {
	Kind Kind
	Name string
}

// String is the place as it is written in addresses and answers.
func (p Place) String() string { return p.Kind.topic(p.Name) }

// ParsePlace reads "kind/name". The text that it returns says what is wrong,
// "" if nothing is, and goes behind the field's name.
func ParsePlace(s string) (p Place, wrong string) {
	kind, name, ok := strings.Cut(s, "/")
	p = Place{Kind(kind), name}
	switch p.Kind {
	case User, Channel, Service, Connection:
	default:
		ok = false
	}
	if !ok {
		return Place{}, "is no target: write user/{id}, channel/{name}, service/{name} or connection/{id}"
	}
	return p, wrongName(name)
}
