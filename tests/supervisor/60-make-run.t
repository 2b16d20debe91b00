#!/usr/bin/env perl

# `make run`: what it says, what it leaves behind, how it ends; in a terminal and without one. The Makefile
# only builds before it calls manifests/local/run, so that is what is started here.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use IO::Socket::UNIX;
use IPC::Open3 qw(open3);
use POSIX ();

for my $program (qw(supervisor podctl gatewayd hashd curl)) {
	my ($found) = grep { -x } eg_bin($program), map { "$_/$program" } split /:/, $ENV{PATH};
	plan skip_all => "$program is missing" if !$found;
}

# Ports that nobody else has at this moment: four in the pattern that the pod wants.
my ($port, $prefix);
{
	my $listen = sub { IO::Socket::INET->new(LocalAddr => "127.0.0.1:$_[0]", Listen => 1, ReuseAddr => 1) };
	for my $try (map { 1100 + ($$ + $_ * 37) % 1900 } 0 .. 200) {
		my @held = map { $listen->("$try$_") } 0, 1, 5 .. 9;
		next if grep { !defined } @held;
		($port, $prefix) = ("${try}9", $try);
		last;
	}
}
die 'no free ports' if !$port;

my $dir = test_dir();
my %env = (RUN_DIR => "$dir/run", LOG_DIR => "$dir/log", STORE_DIR => "$dir/cache", STATE_DIR => "$dir/state", BIN_DIR => eg_bin(),
	PORT => $port, MERGER_PORT => "${prefix}8", POD_REDIS_PORT => "${prefix}7", POD_REDIS_MONITOR_PORT => "${prefix}6", POD_BROADCASTER_PORT => "${prefix}5",
	POD_GATEWAYD_PORTS => $prefix, PATH => $ENV{PATH}, HOME => $ENV{HOME} // '/', TERM => 'xterm',
	map { exists $ENV{$_} ? ($_ => $ENV{$_}) : () } qw(ASAN_OPTIONS UBSAN_OPTIONS LSAN_OPTIONS));
my $run = eg_root() . '/manifests/local/run';

# Starts it; ($pid, sub { all that it said so far }, its stdin).
sub start
{
	my ($command, %more) = @_;
	local %ENV = (%env, %more);
	my $n = our $starts++;
	open my $out, '+>>', "$dir/out.$n" or die $!;
	my $pid = open3(my $in, '>&' . fileno($out), '>&' . fileno($out), @$command);
	return ($pid, sub { slurp("$dir/out.$n") }, $in);
}

sub wait_end
{
	my ($pid) = @_;
	my $status;
	wait_for { my $r = waitpid $pid, POSIX::WNOHANG(); $status = $? if $r == $pid; defined $status } 'the end of run';
	return $status;
}


# Processes whose environment says that they belong to this test's pod.
sub left
{
	my @left;
	for my $file (glob '/proc/[0-9]*/environ') {
		my $environ = eval { slurp($file) } // next;
		push @left, $file if $environ =~ /(?:^|\0)RUN_DIR=\Q$dir\E\/run\0/ && $file ne "/proc/$$/environ";
	}
	return @left;
}

sub nothing_left
{
	is_deeply [ left() ], [], 'no process is left';
	is_deeply [ glob "$dir/run/*" ], [], 'no socket file is left';
	return;
}

subtest 'without a terminal: MISS, HIT; SIGTERM ends it' => sub {
	my ($pid, $out, $in) = start([$run]);
	close $in;
	wait_for { $out->() =~ /Ctrl-C/ } 'the pod to be up';
	my $text = $out->();
	like $text, qr/^  MISS  +[\d.]+ ms  a new text$/m, 'MISS with its time';
	like $text, qr/^  HIT   +[\d.]+ ms  the same text again/m, 'HIT with its time';
	unlike $text, qr/last start/, 'there was no last start';
	like $text, qr{http://127\.0\.0\.1:$port/v1/embeddings}, 'the address';
	like $text, qr/curl -si http/, 'what to try next';
	like $text, qr/provider: mock/, 'which provider';
	unlike $text, qr/\033/, 'no colours';
	my ($url) = $text =~ m{curl -si (\S+)};
	my $r = http_json($url, { model => 'text-embedding-3-small', input => 'hello' });
	is $r->{status}, 200, 'the curl line works';
	my ($second, $said) = start([$run]);
	is wait_end($second) >> 8, 1, 'a second one in the same place is refused';
	like $said->(), qr/runs here already.*podctl shutdown/s, 'and says what to do';
	kill 'TERM', $pid;
	is wait_end($pid), 0, 'exit code';
	nothing_left();
};

subtest 'in a terminal: the last text is a HIT from the store; Ctrl-C ends it' => sub {
	plan skip_all => 'script(1) is missing' if !grep { -x "$_/script" } split /:/, $ENV{PATH};
	my ($pid, $out, $in) = start([ 'script', '-qefc', "exec $run", '/dev/null' ]);
	wait_for { $out->() =~ /Ctrl-C stops/ } 'the pod to be up';
	my $text = $out->();
	like $text, qr/\033\[33mMISS/, 'colours';
	like $text, qr/HIT\s*\033\[0m +[\d.]+ ms  the text of the last start, from the store/, 'HIT over a restart';
	syswrite $in, "\003";
	is wait_end($pid) >> 8, 0, 'exit code';
	nothing_left();
};

subtest 'a port that is taken' => sub {
	my $taken = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$port", Listen => 1, ReuseAddr => 1) or die "$port: $!";
	my ($pid, $out) = start([$run]);
	is wait_end($pid) >> 8, 1, 'exit code';
	like $out->(), qr/^hashd +FATAL .*127\.0\.0\.1:$port is in use/m, 'says which';
	like $out->(), qr/PORT=8081 POD_GATEWAYD_PORTS=811 make run/, 'and what to do';
	nothing_left();
};

subtest 'a daemon that does not come up' => sub {
	my ($pid, $out) = start([$run], CACHE_SIZE => 'none');
	is wait_end($pid) >> 8, 1, 'exit code';
	like $out->(), qr/did not come up/, 'said';
	like $out->(), qr/the end of .*gatewayd\.0\.log\n.*CACHE_SIZE/s, 'with the end of its log';
	nothing_left();
};

subtest 'kill -9 of the script takes the pod along' => sub {
	plan skip_all => 'setpriv(1) is missing' if !grep { -x "$_/setpriv" } split /:/, $ENV{PATH};
	my ($pid, $out) = start([$run]);
	wait_for { $out->() =~ /Ctrl-C/ } 'the pod to be up';
	kill 'KILL', $pid;
	waitpid $pid, 0;
	wait_for { !left() } 'all to leave';
	nothing_left();
};

done_testing;
