package auth

import (
	"errors"
	"fmt"
	"strings"
)

// Pattern covers topics, which are written kind/name (user/alice,
// channel/news, service/billing, connection/c1). There are three forms and no
// more: a topic, which covers itself; a beginning and a * ("channel/room.*",
// "user/*"), which covers every topic of that kind that begins so; and * alone,
// which covers everything, users included.
type Pattern string

// Everything covers every topic.
const Everything Pattern = "*"

// kinds are what stands before the slash of a topic.
var kinds = [...]string{"user", "channel", "service", "connection"}

var errPattern = errors.New(`no pattern: write a topic such as "channel/news", its beginning and a star such as "channel/room.*" or "user/*", or "*" for all; kinds are user, channel, service and connection`)

// ParsePattern reads a pattern. The error says what a pattern is and does not
// repeat the text.
func ParsePattern(s string) (Pattern, error) {
	if s == string(Everything) {
		return Everything, nil
	}
	kind, name, ok := strings.Cut(s, "/")
	known := false
	for _, k := range kinds {
		known = known || k == kind
	}
	if !ok || !known || name == "" || len(s) > 1024 || strings.Contains(strings.TrimSuffix(name, "*"), "*") || strings.ContainsFunc(s, control) {
		return "", errPattern
	}
	return Pattern(s), nil
}

// ParsePatterns reads several and numbers the first that is wrong from 1.
func ParsePatterns(texts []string) ([]Pattern, error) {
	var list []Pattern
	for i, s := range texts {
		p, err := ParsePattern(s)
		if err != nil {
			return nil, fmt.Errorf("item %d is %w", i+1, err)
		}
		list = append(list, p)
	}
	return list, nil
}

func control(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }

// Covers reports whether a topic is covered, or everything that another
// pattern covers. What is neither is covered by nothing but *.
func (p Pattern) Covers(topic string) bool {
	if p == Everything {
		return true
	}
	if begin, ok := strings.CutSuffix(string(p), "*"); ok {
		return strings.HasPrefix(topic, begin) && strings.Contains(begin, "/")
	}
	return p != "" && string(p) == topic
}

func covered(list []Pattern, topic string) bool {
	for _, p := range list {
		if p.Covers(topic) {
			return true
		}
	}
	return false
}
