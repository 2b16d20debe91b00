#!/usr/bin/env perl

# manifests/local/pod.conf under constant load at hashd, every request on a connection of its own: daemons
# are killed and restarted, and not one connection is refused.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use POSIX qw(WNOHANG);
use Pod;

for my $program (qw(gatewayd hashd)) {
	plan skip_all => "$program is not built" if !-x eg_bin($program);
}

# Ports that nobody else has at this moment: gatewayd's stand in a row.
my ($port, $merger, $prefix, @redis);
{
	my $listen = sub { IO::Socket::INET->new(LocalAddr => "127.0.0.1:$_[0]", Listen => 1, ReuseAddr => 1) };
	for my $try (map { 1100 + ($$ + 700 + $_ * 37) % 1900 } 0 .. 200) {
		my @held = map { $listen->("$try$_") } 0, 1, 5 .. 9;
		next if grep { !defined } @held;
		($merger, $port, $prefix, @redis) = ("${try}8", "${try}9", $try, "${try}6", "${try}7");
		last;
	}
}
die 'no free ports' if !$port;

my $dir = test_dir();
mkdir "$dir/$_" or die for qw(log cache);
my $pod = Pod->new('; not used: the last --config counts', args => [ '--config=' . EG::Test::eg_root() . '/manifests/local/pod.conf' ],
	env => { PROVIDER => 'mock', PORT => $port, POD_GATEWAYD_PORTS => $prefix, MERGER_PORT => $merger, POD_REDIS_PORT => $redis[0], POD_REDIS_MONITOR_PORT => $redis[1], POD_BROADCASTER_PORT => "${prefix}5", STATE_DIR => $dir, REDIS_DIR => "$dir/redis", BIN_DIR => eg_bin(), LOG_DIR => "$dir/log",
		STORE_DIR => "$dir/cache", PATH => $ENV{PATH} }, process => { allow => qr/./ });
my ($code, $out) = $pod->ctl('status', '--wait=30');
is $code, 0, 'the pod is up' or diag $out;
my $url = "http://127.0.0.1:$port";

sub batch
{
	my ($n) = @_;
	return http_many([ map { { url => $url, method => 'POST', target => '/v1/embeddings', body => json_encode({
		model => 'text-embedding-3-small', dimensions => 16, input => 'text ' . $_ % 200 }) } } 1 .. $n ], connections => 16);
}

# Load until the action, which is carried out by another process meanwhile, is over, and some more.
sub under_load
{
	my ($action) = @_;
	my @results = batch(100);
	pipe my $r, my $w or die;
	my $pid = fork // die;
	if (!$pid) {
		my $ok = eval { $action->(); 1 };
		print STDERR $@ if !$ok;
		POSIX::_exit($ok ? 0 : 1);
	}
	my ($ended, $more) = (0, 3);
	while ($more) {
		push @results, batch(200);
		$ended = 1 if !$ended && waitpid($pid, WNOHANG) == $pid;
		$more-- if $ended;
		die 'the action does not end' if @results > 500_000;
	}
	my @bad = grep { $_->{status} != 200 } @results;
	my @refused = grep { ($_->{error} // '') =~ /refused/i } @bad;
	my ($slowest) = sort { $b <=> $a } map { $_->{ms} } @results;
	my %why;
	$why{ $_->{error} ? $_->{error} =~ s/\s+\z//r : "status $_->{status}" }++ for @bad;
	return { all => scalar @results, bad => scalar @bad, refused => scalar @refused, slowest => $slowest, action => $?,
		text => sprintf('%d requests, slowest %.0f ms%s', scalar @results, $slowest, join '', map { ", $why{$_} x $_" } sort keys %why) };
}

sub ctl_ok { my ($code, $out, $err) = $pod->ctl(@_); die "podctl @_: $code\n$out$err" if $code; return }

# The next action may count on all being well.
sub kill9
{
	my ($name) = @_;
	my %now = $pod->status;
	my $old = $now{$name}{pid};
	kill 'KILL', $old or die;
	wait_for { %now = $pod->status; $now{$name}{pid} != $old && $now{$name}{state} eq 'RUNNING' } "$name again";
	return;
}

batch(400); # fill the cache
my %now = $pod->status;
my $lost = 16; # as many as there are connections at a time

for my $name (sort grep { $_ ne 'hashd' } keys %now) {
	my $r = under_load(sub { kill9($name) });
	is "$r->{action} $r->{bad}", '0 0', "kill -9 of $name: nobody notices ($r->{text})";
	$r = under_load(sub { ctl_ok('restart', $name) });
	is "$r->{action} $r->{bad}", '0 0', "podctl restart $name: nobody notices ($r->{text})";
}
my $r = under_load(sub { ctl_ok('restart', 'gatewayd') });
is "$r->{action} $r->{bad}", '0 0', "rolling restart of gatewayd: no request fails ($r->{text})";
$r = under_load(sub { kill9('hashd') });
is "$r->{action} $r->{refused}", '0 0', "kill -9 of hashd: no connection is refused ($r->{text})";
cmp_ok $r->{bad}, '<=', $lost, 'and only what was in that process is lost';
$r = under_load(sub { ctl_ok('restart', 'hashd') });
is "$r->{action} $r->{refused}", '0 0', "podctl restart hashd: no connection is refused ($r->{text})";
cmp_ok $r->{bad}, '<=', $lost, 'and only what was in that process is lost';
$r = under_load(sub { ctl_ok('restart', 'all') });
is "$r->{action} $r->{refused}", '0 0', "podctl restart all: no connection is refused ($r->{text})";
$r = under_load(sub { ctl_ok('reload') });
is "$r->{action} $r->{bad}", '0 0', "podctl reload of the same: nobody notices ($r->{text})";
is $pod->stop, 0, 'the pod stops';

done_testing;
