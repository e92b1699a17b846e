//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"ssegate/bench/internal/load"
)

// nginxConf is nginx as one would set it up for event streams: nothing is
// buffered, and connections to the service are kept. nchan keeps as much of a
// channel as ssegate does. It has more connections than files, since nginx
// closes kept ones when all but a sixteenth are taken.
const nginxConf = `daemon off;
load_module %[1]s;
worker_processes %[2]s;
worker_rlimit_nofile 20000;
pid %[3]s/nginx.pid;
error_log stderr error;
%[4]s
events { worker_connections 24000; }
http {
	access_log off;
	client_body_temp_path %[3]s/body;
	proxy_temp_path %[3]s/proxy;
	fastcgi_temp_path %[3]s/fastcgi;
	uwsgi_temp_path %[3]s/uwsgi;
	scgi_temp_path %[3]s/scgi;
	keepalive_requests 1000000000;
	nchan_shared_memory_size 512M;
	nchan_message_buffer_length 10000;
	nchan_message_timeout 1h;
	upstream load {
		server %[5]s;
		keepalive 256;
		keepalive_requests 1000000000;
	}
	server {
		listen %[6]s backlog=4096;
		location / {
			proxy_pass http://load;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_buffering off;
			proxy_read_timeout 1h;
		}
		location /pub/ {
			nchan_publisher;
			nchan_channel_id bench;
		}
		location /sub/ {
			nchan_subscriber eventsource;
			nchan_channel_id bench;
			nchan_subscriber_first_message newest;
		}
		location /past/ {
			nchan_subscriber eventsource;
			nchan_channel_id bench;
			nchan_subscriber_first_message oldest;
		}
	}
}
`

func startNginx(workers string) func(context.Context, *stage, *workload, string) (*play, error) {
	return func(ctx context.Context, s *stage, _ *workload, upstream string) (*play, error) {
		s.count++
		dir := filepath.Join(s.dir, fmt.Sprintf("nginx-%d", s.count))
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		user := ""
		if os.Geteuid() == 0 { // its workers could not read the folder
			user = "user root root;"
		}
		conf := filepath.Join(dir, "nginx.conf")
		text := fmt.Sprintf(nginxConf, nchanModule, workers, dir, user, upstream, addr)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return nil, err
		}
		proc, err := startProcess("nginx", nginxWare.path(), "-p", dir, "-c", conf, "-e", "stderr")
		if err != nil {
			return nil, err
		}
		return answering(ctx, proc, load.Front{
			Clients: []string{addr}, Subscribe: "/sub/" + channel, Past: "/past/" + channel, Publish: rawPublish(addr),
		})
	}
}

// haproxyConf lets HAProxy hold as many streams as the limit of open files
// allows, which it needs two for each.
const haproxyConf = `global
	maxconn 9900
	ulimit-n 20000
	no numa-cpu-mapping
defaults
	mode http
	%[1]s
	option http-keep-alive
	http-reuse always
	timeout connect 5s
	timeout client 1h
	timeout server 1h
	timeout http-request 10s
frontend front
	bind %[2]s backlog 4096
	maxconn 9900
	default_backend load
backend load
	server load %[3]s
`

func startHAProxy(noDelay bool) func(context.Context, *stage, *workload, string) (*play, error) {
	return func(ctx context.Context, s *stage, _ *workload, upstream string) (*play, error) {
		s.count++
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		option := ""
		if noDelay {
			option = "option http-no-delay"
		}
		conf := filepath.Join(s.dir, fmt.Sprintf("haproxy-%d.cfg", s.count))
		if err := os.WriteFile(conf, fmt.Appendf(nil, haproxyConf, option, addr, upstream), 0o600); err != nil {
			return nil, err
		}
		proc, err := startProcess("haproxy", haproxyWare.path(), "-db", "-f", conf)
		if err != nil {
			return nil, err
		}
		return answering(ctx, proc, load.Front{Clients: []string{addr}})
	}
}

// answering waits until a program that was started answers, and ends it if it
// does not.
func answering(ctx context.Context, proc *process, front load.Front) (*play, error) {
	p := &play{server: []*process{proc}, front: front}
	if err := proc.answers(ctx, front.Clients[0]); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}
