//go:build unix

package service

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Nginx starts an nginx for t, as a front or a rival of ssegate. URL is "http://127.0.0.1:PORT". http is the inside of
// the config's http block and is told the address to listen on.
func Nginx(t testing.TB, http func(addr string) string) *Proc {
	t.Helper()
	return forTest(t, nginx(http))
}

const nginxConf = `daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log stderr warn;
events { worker_connections 10000; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	%[2]s
}
`

func nginx(http func(addr string) string) service {
	return service{
		name:    "nginx",
		ports:   1,
		timeout: time.Minute,
		url:     func(addr string) string { return "http://" + addr },
		setup: func(p *Proc) ([]step, error) {
			path, err := program("apt-get install nginx", "nginx", "/usr/sbin/nginx")
			if err != nil {
				return nil, err
			}
			conf := filepath.Join(p.data(), "nginx.conf")
			text := fmt.Sprintf(nginxConf, p.data(), http(p.Addr))
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				return nil, err
			}
			return []step{{
				path: path,
				// Started by root its workers belong to nobody and could not read below the test's folder.
				args: []string{"-p", p.data(), "-c", conf, "-e", "stderr", "-g", workerUser()},
				ready: func(ctx context.Context) error {
					conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.Addr)
					if err != nil {
						return err
					}
					return conn.Close()
				},
			}}, nil
		},
	}
}

// workerUser keeps nginx's workers the user who starts it.
func workerUser() string {
	if os.Geteuid() == 0 {
		return "user root root;"
	}
	return ""
}
