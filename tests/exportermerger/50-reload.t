#!/usr/bin/env perl

# The list of targets: what it accepts, SIGHUP, targets that die and come back, draining.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use POSIX ();

my $peer = daemon('exportermerger', http => 1, rpc => 'peer.sock');
my $file = spew(test_path('targets'), "# ours\nunix:peer.sock\n");
my $merger = daemon('exportermerger', http => 1, env => { MERGER_URLS => $peer->url . '/metrics', MERGER_URLS_FILE => $file });

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

subtest 'lists that are refused' => sub {
	my %bad = (
		'ftp://x' => 'begins with http', 'http://' => 'begins with http', 'unix:' => 'without a path', 'http://a http://a' => 'given twice',
		'http://a#prefix=1x' => 'cannot begin', 'http://a#prefix=a:' => 'cannot begin', 'http://a#x' => 'not name=value', 'http://a#le=1' => 'no name for a label',
		'http://a#__x=1' => 'no name for a label', 'http://a#merger_url=1' => 'no name for a label', 'http://a#x=1&x=2' => 'given twice',
		'http://a#x=%zz' => 'bad value', 'http://a#x=%ff' => 'bad value', 'http://a#x=%00' => 'bad value', 'http://' . 'a' x 300 => 'longer than',
		'unix:/' . 'a' x 120 => 'too long', "http://\xc3\xa9/" => 'printable',
	);
	for my $list (sort keys %bad) {
		my $p = process('exportermerger', [ eg_bin('exportermerger') ], env => { MERGER_URLS => $list, MERGER_PORT => 0, RUN_DIR => test_dir() },
			ready => 0, exit => qr/^78$/, allow => qr/FATAL/);
		$p->wait_exit;
		like $p->log, qr/MERGER_URLS: .*\Q$bad{$list}\E/, substr $list, 0, 40;
	}
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
	is $m->wait_exit, 0, 'then it ends';
};

done_testing;
