#!/usr/bin/env perl

# The access log: its fields, whatever clients send; sampling; the level, changed while it runs; and a reader that
# does not read.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Digest::SHA qw(sha256_hex);
use Fcntl qw(F_SETPIPE_SZ);
use POSIX ();

my $gatewayd = fake_gatewayd(0);
my $d = daemon('hashd', http => 1, rpc => 'hashd.sock', allow => qr/request failed/);
wait_for { http('GET', $d->url . '/metrics')->{body} =~ /^hashd_backend_up\{.*\} 1$/m } 'gatewayd';

sub post
{
	my ($body, %header) = @_;
	return http('POST', $d->url . '/v1/embeddings?a=b', [ 'Content-Type' => 'application/json', %header ], $body);
}

sub lines { return grep { ($_->{body} // '') eq 'request' } $d->log_lines }
sub wait_line { my ($of) = @_; my @l; wait_for { @l = grep { ($_->{body_hash} // '') eq sha256_hex($of) } lines() } 'its line'; return $l[0] }

subtest 'fields' => sub {
	my $r = post('one', 'User-Agent' => 'ua/1 "quoted" \\', 'X-Forwarded-For' => '192.0.2.1, 192.0.2.2',
		Traceparent => '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01');
	my $line = wait_line('one');
	my %want = (name => 'hashd', severitytext => 'INFO', method => 'POST', target => '/v1/embeddings?a=b', status => $r->{status},
		bytes_in => 3, bytes_out => length $r->{body}, body_hash => sha256_hex('one'), backend => 'gatewayd.0', client => '127.0.0.1',
		user_agent => 'ua/1 "quoted" \\', x_forwarded_for => '192.0.2.1, 192.0.2.2', traceid => '0af7651916cd43dd8448eb211c80319c');
	is $line->{$_}, $want{$_}, $_ for sort keys %want;
	like $line->{time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$/, 'time';
	like $line->{spanid}, qr/^(?!b7ad6b7169203331)[0-9a-f]{16}$/, 'a span of our own';
	cmp_ok $line->{duration_us}, '>', 0, 'duration';
	post('two');
	isnt wait_line('two')->{traceid}, $line->{traceid}, 'without traceparent: an id all the same';
	like wait_line('two')->{traceid}, qr/^[0-9a-f]{32}$/, 'of the same form';
};

subtest 'what clients make up' => sub {
	post('three', 'User-Agent' => "\xff\xfe\xc3\xa9 " . ('x' x 20_000), Traceparent => '00-zz', 'X-Forwarded-For' => "a\tb");
	my $line = wait_line('three');
	like $line->{user_agent}, qr/^\x{fffd}\x{fffd}\x{e9} x{1000}/, 'bytes that are not UTF-8';
	cmp_ok length $line->{user_agent}, '<=', 4096, 'and long values are cut';
	like $line->{traceid}, qr/^[0-9a-f]{32}$/, 'a bad traceparent is none';
	is scalar(grep { /^\{/ && !eval { json_decode($_); 1 } } split /\n/, $d->log), 0, 'every line is JSON';
};

subtest 'probes' => sub {
	my $before = lines();
	http('GET', $d->url . $_) for my @paths = qw(/healthz /readyz /metrics);
	post('four');
	wait_line('four');
	is lines() - $before, 1, 'probes and scrapes leave no lines';
};

subtest 'the level, while it runs' => sub {
	my $rpc = $d->rpc;
	$rpc->call('log_level', ['warn']);
	post('five');
	$rpc->call('log_level', ['info']);
	post('six');
	wait_line('six');
	is scalar(grep { $_->{body_hash} eq sha256_hex('five') } lines()), 0, 'nothing at warn';
};

subtest 'sampling' => sub {
	my $n = 400;
	my @requests = map { { url => $d->url, method => 'POST', target => '/v1/embeddings', body => "body $_" } } 1 .. $n;
	for my $case ([ '0', 0, 0 ], [ '0.25', 60, 145 ], [ '1', $n, $n ]) {
		my ($share, $least, $most) = @$case;
		$d->restart(env => { %{ $d->{env} }, HASHD_ACCESS_LOG_SAMPLE => $share });
		wait_for { http('GET', $d->url . '/metrics')->{body} =~ /^hashd_backend_up\{.*\} 1$/m } 'gatewayd';
		my $before = lines();
		http_many(\@requests, connections => 10);
		$d->stop; # writes what it has
		my $logged = lines() - $before;
		ok $logged >= $least && $logged <= $most, "a share of $share: $logged of $n";
		$d->start;
	}
	$d->restart(env => { %{ $d->{env} }, HASHD_ACCESS_LOG_SAMPLE => '0', HASHD_BACKEND_WAIT => '10ms' });
	$gatewayd->kill9;
	wait_for { http('GET', $d->url . '/metrics')->{body} =~ /^hashd_backend_up\{.*\} 0$/m } 'no gatewayd';
	is post('seven')->{status}, 503, 'nobody there';
	is wait_line('seven')->{status}, 503, 'a 5xx is there at any share';
};

done_testing;
