package auth

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestPatterns(t *testing.T) {
	f := func(pattern, covers, not string) {
		t.Helper()
		p, err := ParsePattern(pattern)
		if err != nil {
			t.Errorf("%q: %v", pattern, err)
			return
		}
		for topic := range strings.FieldsSeq(covers) {
			if !p.Covers(topic) {
				t.Errorf("%q does not cover %q", p, topic)
			}
		}
		for topic := range strings.FieldsSeq(not) {
			if p.Covers(topic) {
				t.Errorf("%q covers %q", p, topic)
			}
		}
	}
	f("*", "user/a channel/b service/c connection/d * user/* channel/x*", "")
	f("channel/news", "channel/news", "channel/new channel/news2 user/news channel/news* channel/* * Channel/news")
	f("channel/room.*", "channel/room. channel/room.1 channel/room.1.2 channel/room.* channel/room.1*", "channel/room channel/rooms user/room.1 channel/* channel/roo* *")
	f("user/*", "user/a user/* user/a*", "users/a channel/a user * connection/a")
	f("user/日本*", "user/日本語", "user/日")
	for _, s := range []string{
		"", "/", "user", "user/", "/a", "users/a", "USER/a", "**", "*/a", "*/*", "user/*a", "user/a*b", "user/**", "*a", "use*", " user/a",
		"user/a\n", "user/\x00", "user/\xff", "user/" + strings.Repeat("a", 1024),
	} {
		if p, err := ParsePattern(s); err == nil || p != "" {
			t.Errorf("%q passes", s)
		} else if len(s) > 8 && strings.Contains(err.Error(), s) {
			t.Errorf("%v repeats the text", err)
		}
	}
	for _, p := range []Pattern{"", "use*", "user"} { // not from ParsePattern
		if p.Covers("user/a") || p.Covers("") {
			t.Errorf("%q covers something", p)
		}
	}
	if _, err := ParsePatterns([]string{"user/*", "*", "x"}); err == nil || !strings.HasPrefix(err.Error(), "item 3 is ") {
		t.Error(err)
	}
}

func TestWhoMayWhat(t *testing.T) {
	f := func(id *Identity, follow, notFollow, publish, notPublish string) {
		t.Helper()
		for what, list := range map[string]string{"follow": follow, "not follow": notFollow, "publish": publish, "not publish": notPublish} {
			may := id.MayFollow
			if strings.Contains(what, "publish") {
				may = id.MayPublish
			}
			for topic := range strings.FieldsSeq(list) {
				if may(topic) == strings.HasPrefix(what, "not") {
					t.Errorf("%+v may not be right about: %s %s", id, what, topic)
				}
			}
		}
	}
	f(nil, "", "user/a user/ *", "", "user/a *")
	f(&Identity{}, "", "user/ user/a * channel/a", "", "user/a *")
	// One's own topic, and nobody else's; to follow it is not to publish there.
	f(&Identity{Subject: "alice"}, "user/alice", "user/alicea user/alic user/* user/ALICE channel/alice service/alice connection/alice *", "", "user/alice")
	f(&Identity{Subject: "alice", Follow: []Pattern{"channel/*", "user/bob"}, Publish: []Pattern{"service/x"}},
		"user/alice user/bob channel/a channel/*", "user/carol user/* service/x *", "service/x", "channel/a user/alice *")
	// A name that looks like a pattern gives no more.
	f(&Identity{Subject: "*"}, "", "user/* user/a *", "", "user/*")
	f(&Identity{Subject: "al*"}, "", "user/al* user/alice", "", "")
	f(Anyone(), "user/a channel/* *", "", "user/a *", "")
	f(&Identity{Key: "k", Publish: []Pattern{"user/*"}}, "", "user/k user/a", "user/a", "channel/a *")
}

func TestPrincipalsAndContext(t *testing.T) {
	names := map[string]bool{}
	for _, id := range []*Identity{nil, {Subject: "a"}, {Key: "a"}, {Subject: "key:a"}, {Subject: "b"}} {
		if names[id.Principal()] {
			t.Errorf("two are called %q", id.Principal())
		}
		names[id.Principal()] = true
	}
	id := &Identity{Subject: "a"}
	if got := FromContext(NewContext(t.Context(), id)); got != id {
		t.Error(got)
	}
	if got := FromContext(context.Background()); got != nil {
		t.Error(got)
	}
}

func TestChallenge(t *testing.T) {
	f := func(err error, want string) {
		t.Helper()
		if got := Challenge(err); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	f(ErrNone, `Bearer realm="ssegate"`)
	f(errors.New("x"), `Bearer realm="ssegate"`)
	f(fmt.Errorf("deeper: %w", bad(Expired, "the token has expired")), `Bearer realm="ssegate", error="invalid_token", error_description="the token has expired"`)
	f(bad(BadClaims, `must be "x"`), `Bearer realm="ssegate", error="invalid_token", error_description="must be 'x'"`)
}
