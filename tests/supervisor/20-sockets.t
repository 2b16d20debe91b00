#!/usr/bin/env perl

# Listening sockets: handed down, kept over restarts, closed when nobody will serve them.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Pod;

# Serves "pid name" to each connection on each socket it was given; waits for "$T/open" first.
my $server = <<'CODE';
use IO::Socket::INET;
die "pid" if $ENV{LISTEN_PID} != $$;
my @names = split /:/, $ENV{LISTEN_FDNAMES};
die 'count' if @names != $ENV{LISTEN_FDS};
note("up $$ @names");
select undef, undef, undef, 0.005 while -e "$T/hold";
my %sockets = map { (3 + $_ => $names[$_]) } 0 .. $#names;
my %handles = map { my $fd = $_; open my $h, '+<&=', $fd or die $!; ($fd => $h) } keys %sockets;
while (1) {
	my $bits = '';
	vec($bits, $_, 1) = 1 for keys %sockets;
	select $bits, undef, undef, undef;
	for my $fd (keys %sockets) {
		next if !vec($bits, $fd, 1);
		accept my $client, $handles{$fd} or next;
		syswrite $client, "$$ $sockets{$fd}\n";
		close $client;
	}
}
CODE

# A free port: bound, noted, closed. Only this test's supervisor is told about it.
my $port = do { my $s = listen_tcp(); $s->sockport };

sub ask_tcp { my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") or return; my $line = <$s>; return $line }
sub ask_unix { my $s = IO::Socket::UNIX->new(Peer => $_[0]) or return; my $line = <$s>; return $line }

my $pod = Pod->new(sub {
	my ($pod) = @_;
	my $command = $pod->script(web => $server);
	return <<CONF;
[program:web]
command=$command
startsecs=0
sockets=http=127.0.0.1:$port, rpc=%(ENV_RUN_DIR)s/%(program_name)s.sock
CONF
});
my $path = $pod->path('web.sock');
my ($web) = $pod->wait_state(web => 'RUNNING');
is ask_tcp(), "$web->{pid} http\n", 'TCP';
is ask_unix($path), "$web->{pid} rpc\n", 'Unix';
is sprintf('%o', (stat $path)[2] & 0777), '660', 'mode of the Unix socket';

subtest 'a client that connects while nobody runs is served by the next process' => sub {
	spew($pod->path('hold'), '');
	my $old = $web->{pid};
	kill 'STOP', $old;
	my $client = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") or die "refused: $!";
	kill 'KILL', $old;
	my @more = map { IO::Socket::UNIX->new(Peer => $path) or die "refused: $!" } 1 .. 50;
	$pod->wait_events(2);
	my ($now) = $pod->wait_state(web => 'RUNNING');
	isnt $now->{pid}, $old, 'another process';
	unlink $pod->path('hold');
	is <$client>, "$now->{pid} http\n", 'TCP';
	is scalar(grep { my $line = <$_>; $line eq "$now->{pid} rpc\n" } @more), 50, 'Unix, all of them';
};

subtest 'podctl restart refuses nobody' => sub {
	my ($before) = $pod->wait_state(web => 'RUNNING');
	my $stop = test_path('stop');
	pipe my $r, my $w or die;
	my $pid = fork // die;
	if (!$pid) {
		my ($served, $refused) = (0, 0);
		until (-e $stop) {
			my $s = IO::Socket::UNIX->new(Peer => $path);
			# Served, or reset because its process went; never refused.
			$s ? $served++ : $refused++;
			<$s> if $s;
		}
		syswrite $w, "$served $refused\n";
		POSIX::_exit(0);
	}
	close $w;
	for (1 .. 3) {
		my ($code) = $pod->ctl('restart', 'web');
		is $code, 0, 'podctl restart';
	}
	spew($stop, '');
	my ($served, $refused) = split ' ', <$r>;
	waitpid $pid, 0;
	cmp_ok $served, '>', 0, "$served connections";
	is $refused, 0, 'none refused';
	my ($after) = $pod->wait_state(web => 'RUNNING');
	isnt $after->{pid}, $before->{pid}, 'it was restarted';
	is $after->{restarts}, 1, 'which does not count as a restart that nobody asked for';
};

subtest 'closed while stopped, back after start' => sub {
	my ($code) = $pod->ctl('stop', 'web');
	is $code, 0, 'podctl stop';
	ok !defined ask_tcp(), 'TCP is refused';
	ok !-e $path, 'the Unix socket is gone';
	($code) = $pod->ctl('start', 'web');
	is $code, 0, 'podctl start';
	like ask_tcp(), qr/http/, 'TCP is back';
	like ask_unix($path), qr/rpc/, 'Unix is back';
};

is $pod->stop, 0, 'clean end';
ok !-e $path, 'no socket file left';

subtest 'a port that stays taken: FATAL, with its name' => sub {
	my $taken = listen_tcp();
	my $address = '127.0.0.1:' . $taken->sockport;
	my $other = Pod->new("[program:p]\ncommand=sleep 1000\nrestart_delay=1ms\nsockets=a=%(ENV_RUN_DIR)s/p.sock,http=$address\n");
	my ($p) = $other->wait_state(p => 'FATAL');
	like $p->{description}, qr/\Q$address\E is in use/, 'reason';
	ok !-e $other->path('p.sock'), 'what was opened before it is closed';
	my ($code, $out, $err) = $other->ctl('status', '--wait');
	is $code, 3, 'status --wait does not wait for it';
	is $other->stop, 0;
};

subtest 'a predecessor that takes its time' => sub {
	my $taken = listen_tcp();
	my $port = $taken->sockport;
	my $other = Pod->new("[program:p]\ncommand=sleep 1000\nstartsecs=0\nstartretries=1000\nrestart_delay=20ms\nrestart_delay_max=20ms\n"
		. "sockets=http=127.0.0.1:$port\n");
	$other->wait_state(p => 'BACKOFF');
	close $taken;
	$other->wait_state(p => 'RUNNING');
	ok(IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port"), 'has its port when that is free');
	is $other->stop, 0;
};

subtest 'closed when FATAL' => sub {
	my $other = Pod->new("[program:p]\ncommand=false\nstartretries=1\nrestart_delay=1ms\nsockets=a=%(ENV_RUN_DIR)s/p.sock\n");
	$other->wait_state(p => 'FATAL');
	ok !-e $other->path('p.sock'), 'gone';
	is $other->stop, 0;
};

subtest 'a stale socket file is replaced, one that is served is not' => sub {
	my $dir;
	my $stale = Pod->new(sub {
		my ($p) = @_;
		$dir = $p->dir;
		close listen_unix("$dir/p.sock");
		return "[program:p]\ncommand=sleep 1000\nstartsecs=0\nsockets=a=%(ENV_RUN_DIR)s/p.sock\n";
	});
	$stale->wait_state(p => 'RUNNING');
	my $second = Pod->new("[program:p]\ncommand=sleep 1000\nstartsecs=0\nrestart_delay=1ms\nsockets=a=$dir/p.sock\n");
	my ($p) = $second->wait_state(p => 'FATAL');
	like $p->{description}, qr/in use|listen/, 'in use';
	ok(IO::Socket::UNIX->new(Peer => "$dir/p.sock"), 'the first one still has it');
	is $second->stop, 0;
	ok -S "$dir/p.sock", 'and still does when the second is gone';
	is $stale->stop, 0;
};

done_testing;
