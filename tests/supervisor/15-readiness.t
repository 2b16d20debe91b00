#!/usr/bin/env perl

# ready=rpc, tcp, http: RUNNING when the answer is yes, and not before.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Pod;

my $lib = eg_root() . '/tests/lib';
my $free = do { my $s = listen_tcp(); $s->sockport };

my $pod = Pod->new(sub {
	my ($pod) = @_;
	# Answers pings on the socket it was given: not ready until the file is there.
	my $rpc = $pod->script(rpc => <<"HEAD" . <<'CODE');
use lib '$lib';
HEAD
use EG::MsgPack;
use IO::Socket::UNIX;
open my $listener, '+<&=', 3 or die $!;
bless $listener, 'IO::Socket::UNIX';
note('rpc up');
while (1) {
	accept my $client, $listener or next;
	my $in = '';
	while (sysread $client, $in, 65536, length $in) {
		while (length $in) {
			my ($m, $used) = mp_unpack_one(\$in, 0);
			last if !defined $used;
			substr($in, 0, $used) = '';
			note('rpc asked');
			my $ready = -e "$T/rpc-ready" ? mp_raw("\xc3") : mp_raw("\xc2");
			syswrite $client, mp_pack([ 1, mp_int($m->[1]), undef, [ 'p', 'v', mp_int($$), 'id', mp_int(1), $ready ] ]);
		}
	}
}
CODE
	my $http = $pod->script(http => <<'CODE');
use IO::Socket::INET;
open my $listener, '+<&=', 3 or die $!;
while (1) {
	accept my $client, $listener or next;
	my $head = '';
	1 while $head !~ /\r\n\r\n/ && sysread $client, $head, 4096, length $head;
	note('http ' . ($head =~ /^(\S+ \S+)/)[0]);
	my $status = -e "$T/http-ready" ? '204 No Content' : '503 Service Unavailable';
	syswrite $client, "HTTP/1.1 $status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
}
CODE
	my $tcp = $pod->script(tcp => <<'CODE');
use IO::Socket::INET;
note('tcp up');
select undef, undef, undef, 0.005 while !-e "$T/tcp-ready";
my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$ARGV[0]", Listen => 5, ReuseAddr => 1) or die $!;
sleep 1 while 1;
CODE
	my $port = do { my $s = listen_tcp(); $s->sockport };
	return <<CONF;
[program:rpc]
command=$rpc
sockets=rpc=%(ENV_RUN_DIR)s/p.sock
ready=rpc
[program:http]
command=$http
sockets=http=127.0.0.1:$port
ready=http:$port/ready?x=1
[program:tcp]
command=$tcp $free
ready=tcp:$free
[program:after]
command=sleep 1000
startsecs=0
depends_on=rpc,http,tcp
CONF
});

# Each is asked, says no, and stays STARTING.
wait_for { my %n; $n{$_}++ for $pod->events; ($n{'rpc asked'} // 0) >= 2 && ($n{'http GET /ready?x=1'} // 0) >= 2 && $n{'tcp up'} }
	'two questions each';
my %now = $pod->status;
is join(' ', map { $now{$_}{state} } qw(rpc http tcp after)), 'STARTING STARTING STARTING STOPPED', 'not ready';
is $now{rpc}{ready}, 0, 'and said to be so' if !ref $now{rpc}{ready};
for my $name (qw(rpc http tcp)) {
	%now = $pod->status;
	is $now{after}{state}, 'STOPPED', "not before $name is ready";
	spew($pod->path("$name-ready"), '');
	$pod->wait_state($name => 'RUNNING');
}
$pod->wait_state(after => 'RUNNING');
pass 'when all three are';

# Over a held socket the first question is answered when the process serves: nothing polls, nothing is lost.
my ($rpc) = $pod->wait_state(rpc => 'RUNNING');
kill 'KILL', $rpc->{pid};
wait_for { %now = $pod->status; $now{rpc}{state} eq 'RUNNING' && $now{rpc}{pid} != $rpc->{pid} } 'ready again';
is $now{after}{restarts}, 0, 'what depends on it is left alone';
is $pod->stop, 0;

done_testing;
