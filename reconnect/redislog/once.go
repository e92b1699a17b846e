package redislog

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/reconnect"
)

// careful is a pipeline whose scripts the client does not send a second time by
// itself when it does not know what became of the first.
type careful struct{ redis.Pipeliner }

// Eval is what [redis.Script] calls.
func (p careful) Eval(ctx context.Context, script string, keys []string, args ...any) *redis.Cmd {
	return p.send(ctx, "eval", script, keys, args)
}

// EvalSha is what [redis.Script] calls.
func (p careful) EvalSha(ctx context.Context, hash string, keys []string, args ...any) *redis.Cmd {
	return p.send(ctx, "evalsha", hash, keys, args)
}

func (p careful) send(ctx context.Context, name, script string, keys []string, args []any) *redis.Cmd {
	all := append(make([]any, 0, 3+len(keys)+len(args)), name, script, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	_ = p.Process(ctx, onceCmd{cmd}) // only queued
	return cmd
}

// onceCmd is a command that the client sends once.
type onceCmd struct{ *redis.Cmd }

// NoRetry is the client's question.
func (onceCmd) NoRetry() bool { return true }

// runReplicated is run, and waits until enough replicas have what was written;
// where they do not, after says so. WAIT is about the connection that it
// is sent on, so on Redis Cluster each master has a pipeline of its own.
func (l *Log) runReplicated(ctx context.Context, calls []call) error {
	left := make([]*call, len(calls))
	for i := range calls {
		left[i] = &calls[i]
	}
	for tries := 3; ; tries-- {
		groups, err := l.byMaster(ctx, left)
		if err != nil {
			return err
		}
		if err := l.runGroups(ctx, groups); err != nil {
			return err
		}
		left = slices.DeleteFunc(left, func(c *call) bool { return !redis.HasErrorPrefix(c.reply.Err(), "MOVED") })
		cluster, is := l.client.(*redis.ClusterClient)
		if len(left) == 0 || !is || tries == 0 {
			return nil
		}
		cluster.ReloadState(ctx) // who answered so has done nothing
	}
}

func (l *Log) runGroups(ctx context.Context, groups map[pipelines][]*call) error {
	errs := make(chan error, len(groups))
	for client, group := range groups {
		l.calls.Go(func() {
			err := l.runAndWait(ctx, client, group, false)
			again := slices.DeleteFunc(group, func(c *call) bool { return err != nil || !c.unknown() })
			if len(again) > 0 {
				err = l.runAndWait(ctx, client, again, true)
			}
			errs <- err
		})
	}
	var failed error
	for range groups {
		if err := <-errs; err != nil {
			failed = err
		}
	}
	return failed
}

type pipelines interface{ Pipeline() redis.Pipeliner }

// byMaster sorts calls by who holds their keys.
func (l *Log) byMaster(ctx context.Context, calls []*call) (map[pipelines][]*call, error) {
	groups := map[pipelines][]*call{}
	cluster, is := l.client.(*redis.ClusterClient)
	for _, c := range calls {
		var to pipelines = l.client
		if is {
			master, err := cluster.MasterForKey(ctx, c.keys[0])
			if err != nil {
				return nil, err
			}
			to = master
		}
		groups[to] = append(groups[to], c)
	}
	return groups, nil
}

func (l *Log) runAndWait(ctx context.Context, client pipelines, calls []*call, whole bool) error {
	pipe := client.Pipeline()
	for _, c := range calls {
		c.queue(ctx, pipe, whole)
	}
	patience := l.patience
	if patience <= 0 {
		patience = time.Second
	}
	if end, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(end)*3/4)
	}
	if c, ok := client.(*redis.Client); ok && c.Options().ReadTimeout > 0 {
		patience = min(patience, c.Options().ReadTimeout*3/4) // else the other replies are lost with this one
	}
	wait := redis.NewCmd(ctx, "wait", l.replicas, max(1, patience.Milliseconds()))
	_ = pipe.Process(ctx, onceCmd{wait}) // only queued
	if err := l.exec(ctx, pipe); err != nil {
		return err
	}
	have, err := wait.Int()
	if err == nil && have >= l.replicas {
		return nil
	}
	short := fmt.Errorf("%w: %d of %d", reconnect.ErrReplicas, have, l.replicas)
	if err != nil {
		short = fmt.Errorf("%w: %w", reconnect.ErrReplicas, err)
	}
	for _, c := range calls {
		c.after = short
	}
	return nil
}
