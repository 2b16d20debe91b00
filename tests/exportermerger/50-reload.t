#!/usr/bin/env perl

# The list of targets: what it accepts, SIGHUP, targets that die and come back, draining.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use POSIX ();

my $peer = daemon('exportermerger', http => 1, rpc => 'peer.sock');
my $file = spew(test_path('targets'), "# ours\nunix:peer.sock\n");
my $merger = daemon('exportermerger', http => 1, env => { MERGER_URLS => $peer->url . '/metrics', MERGER_URLS_FILE => $file, MERGER_TARGET_TIMEOUT => '1s' });

sub page { return http('GET', $merger->url . '/metrics')->{body} }
sub up { my ($page) = @_; return join ' ', map { s/^http.*?\/metrics/http/r } sort $page =~ /^merger_up\{merger_url="([^"]+)"\} 1$/mg }
sub known { my ($page) = @_; return scalar(() = $page =~ /^merger_up\{/mg) }

is up(page()), 'http unix:peer.sock', 'both lists';

subtest 'SIGHUP' => sub {
	spew($file, "");
	$merger->signal('HUP')->wait_log(qr/"1 targets"/);
	my $page = page();
	is known($page), 1, 'gone, and so are its metrics';
	unlike $page, qr/merger_url="unix:peer\.sock"/, 'all of them';
	like $page, qr/^merger_scrape_samples\{merger_url="http/m, 'the other one stays';
	spew($file, "unix:peer.sock unix:absent.sock\n");
	$merger->signal('HUP')->wait_log(qr/"3 targets"/);
	is known(page()), 3, 'more of them';
	spew($file, "ftp://x\n");
	$merger->signal('HUP')->wait_log(qr/targets stay as they were: ftp:/);
	is known($page = page()), 3, 'a bad list changes nothing';
	like $page, qr/^merger_reloads_total\{merger_url="exportermerger",result="bad"\} 1$|^merger_reloads_total\{.*result="bad".*\} 1$/m, 'counted';
};

subtest 'a target that dies and comes back' => sub {
	$peer->kill9;
	is up(page()), '', 'down';
	$peer->start;
	$peer->wait_ready;
	is up(page()), 'http unix:peer.sock', 'up again';
	my @lines = grep { ($_->{body} // '') eq 'target left out' && $_->{merger_url} eq 'unix:absent.sock' } $merger->log_lines;
	is scalar(@lines), 1, 'what goes on failing is said once';
};

subtest 'sockets by pattern' => sub {
	# Left by a daemon that died: a socket on which nobody listens.
	my $dead = sub { my ($name) = @_; listen_unix(test_path($name)); return };
	$dead->($_) for 'x.9.sock', 'x.a b.sock', '.x.7.sock', 'y.1.sock';
	spew(test_path('x.8.sock'), 'a file');
	my $dir = test_dir();
	my $m = daemon('exportermerger', http => 1,
		env => { MERGER_URLS => "unix:peer.sock unix:x.*.sock#zone=a unix:x.9.*#zone=b unix:$dir/y*#prefix=y_ unix:$dir/none/*.sock unix:*eer.sock#zone=c" });
	my $up = sub {
		my $page = http('GET', $m->url . '/metrics')->{body};
		return join ' ', map { s/\Q$dir\E/DIR/r } $page =~ /^merger_up\{merger_url="unix:([^"]+" ?\} \d)$/mg;
	};
	is $up->(), 'DIR/y.1.sock"} 0 peer.sock"} 1 x.9.sock"} 0', 'those that are there, each once, sorted';
	my $new = daemon('exportermerger', rpc => 'x.10.sock', http => 1);
	is $up->(), 'DIR/y.1.sock"} 0 peer.sock"} 1 x.10.sock"} 1 x.9.sock"} 0', 'one that came later';
	$m->wait_log(qr/"4 targets"/);
	my $page = http('GET', $m->url . '/metrics')->{body};
	like $page, qr/^\w+\{merger_url="unix:x\.10\.sock",.*zone="a"/m, 'with what the pattern says of it';
	unlike $page, qr/merger_url="unix:peer\.sock",.*zone=/, 'the one that is listed by itself without';
	$new->signal('TERM')->wait_exit;
	unlink test_path('x.10.sock'), test_path('x.9.sock');
	is $up->(), 'DIR/y.1.sock"} 0 peer.sock"} 1 x.10.sock"} 0 x.9.sock"} 0', 'whoever was seen is down when it is gone';
	$m->signal('HUP')->wait_log(qr/"2 targets"/);
	is $up->(), 'DIR/y.1.sock"} 0 peer.sock"} 1', 'until SIGHUP';
	$dead->("x.$_.sock") for 100 .. 169;
	is_deeply [ $up->() =~ /x\.(\d+)/g ], [ 100 .. 163 ], 'at most 64 for a pattern, the first by name';
	$m->wait_log(qr/unix:x\.\*\.sock: more than 64 sockets/);
	$up->();
	is scalar(grep { ($_->{body} // '') =~ /more than 64/ } $m->log_lines), 1, 'said once';
};

# Which ones and why: target_test.c.
subtest 'a list that is refused' => sub {
	my $p = process('exportermerger', [ eg_bin('exportermerger') ], env => { MERGER_URLS => 'ftp://x', MERGER_PORT => 0, RUN_DIR => test_dir() },
		ready => 0, exit => qr/^78$/, allow => qr/FATAL/);
	$p->wait_exit;
	like $p->log, qr/MERGER_URLS: ftp:.* begins with http/, 'said at the start';
};

subtest 'credentials are not shown' => sub {
	my $seen = listen_tcp();
	my $port = $seen->sockport;
	my $m = daemon('exportermerger', http => 1, env => { MERGER_URLS => "http://user:secret\@127.0.0.1:$port/m" });
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		http('GET', $m->url . '/metrics');
		POSIX::_exit(0);
	}
	my $c = $seen->accept;
	my $in = '';
	while ($in !~ /\r\n\r\n/) { sysread $c, $in, 4096, length $in or last }
	like $in, qr/^Authorization: Basic dXNlcjpzZWNyZXQ=\r$/mi, 'sent';
	like $in, qr{^Accept: application/openmetrics-text}mi, 'OpenMetrics is asked for';
	close $c;
	waitpid $pid, 0;
	close $seen;
	my $page = http('GET', $m->url . '/metrics')->{body};
	like $page, qr{^merger_up\{merger_url="http://127\.0\.0\.1:$port/m"\} 0$}m, 'without them in the label';
	unlike $page . $m->log, qr/secret/, 'nowhere';
};

subtest 'the end' => sub {
	my $silent = listen_unix(test_path('silent.sock'));
	my $m = daemon('exportermerger', http => 1, env => { MERGER_URLS => 'unix:silent.sock', LAMEDUCK => 0 });
	my $c = EG::HTTP->new($m->url);
	$c->send("GET /metrics HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 1\r\n\r\n");
	my $asked = $silent->accept;
	$m->signal('TERM');
	is $c->response->{status}, 200, 'a page under way is finished';
	undef $c;
	is $m->wait_exit, 0, 'then it ends';
};

done_testing;
