package Redis;

# Redis servers, the proxy in front of them, and a RESP client that shows what is on the wire.
#
#   my $redis = Redis::server();                      # skips the test when there is no redis-server
#   my $proxy = Redis::proxy($redis, args => [...]);  # $proxy->redis_port
#   my $c = Redis->new($proxy->redis_port);           # or ->new($port, host => $address)
#   $c->cmd('SET', 'a', 1)                            # 'OK'; errors are Redis::Error objects
#   $c->put('GET', 'a'); $c->get                      # pipelines

use strict;
use warnings;
use EG::Test;
use IO::Socket::INET;
use Socket qw(IPPROTO_TCP TCP_NODELAY);

sub binary
{
	for my $dir (split(/:/, $ENV{PATH} // ''), '/usr/bin', '/usr/local/bin') {
		return "$dir/redis-server" if -x "$dir/redis-server";
	}
	return;
}

# A port that was free a moment ago (redis-server takes no inherited sockets): in the test's own
# network there is nobody else; a clash shows as a server that does not start.
sub free_port
{
	my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 1) // die "listen: $!";
	return $s->sockport;
}

# Is it this server that answers there?
sub answers
{
	my ($host, $port, $dir) = @_;
	my $c = eval { Redis->new($port, host => $host) } // return;
	my $reply = eval { $c->cmd('CONFIG', 'GET', 'dir') } // return;
	return ref $reply eq 'ARRAY' && $reply->[1] =~ /\Q$dir\E$/;
}

my $n = 0;

sub server
{
	my (%o) = @_;
	my $binary = binary() // plan(skip_all => 'no redis-server here');
	my $dir = test_path('redis-' . $n++);
	mkdir $dir;
	my $host = $o{host} // '127.0.0.1';
	for my $try (1 .. 5) {
		my $port = $o{port} // free_port();
		# The bus of a cluster has a port of its own, which by default could be too high a number.
		my $bus = $o{bus_port} // free_port();
		my @bus = $o{cluster} ? ('--cluster-port', $bus) : ();
		my $p = eval {
			my $p = process("redis$n", [ $binary, '--port', $port, '--bind', $host, '--save', '', '--dir', $dir,
				'--appendonly', 'no', '--repl-diskless-sync-delay', '0', '--logfile', '', '--daemonize', 'no', @bus, @{ $o{args} // [] } ],
				ready => 0, exit => $o{exit} // qr/^(?:0|1|9|15)$/, stop_ms => 5000);
			wait_for { !$p->running || answers($host, $port, $dir) } 'redis-server';
			die "taken\n" if !$p->running;
			$p;
		};
		next if !$p && !$o{port};
		die $@ if !$p;
		@$p{qw(redis_host redis_port bus_port)} = ($host, $port, $bus);
		return bless $p, 'Redis::Process';
	}
	die 'no redis-server';
}

sub proxy
{
	my ($writer, %o) = @_;
	my $listen = listen_tcp();
	my @reader = $o{reader} ? ('--reader-routing', '--reader-remote-address=127.0.0.1:' . $o{reader}->redis_port) : ();
	my $to = ref $writer ? '127.0.0.1:' . $writer->redis_port : $writer;
	my @how = (http => 1, rpc => 'redisproxy' . $n++ . '.sock', sockets => [ [ 'redis', $listen ] ], allow => $o{allow},
		# It serves on until its clients leave, and those of a test often stay longer.
		env => { LAMEDUCK => 0, TERMINATION_GRACE_PERIOD => '500ms', %{ $o{env} // {} } },
		args => [ "--remote-address=$to", @reader, @{ $o{args} // [] } ]);
	# With a file of hosts of its own.
	my $p = !$o{hosts} ? daemon('redisproxy', @how) : process('redisproxy', [ 'unshare', '-m', '--', 'sh', '-c',
		'mount --bind "$0" /etc/hosts && exec "$@"', $o{hosts}, eg_bin('redisproxy') ], @how);
	$p->{redis_port} = $listen->sockport;
	return bless $p, 'Redis::Process';
}

# 160 KB of writes from each of so many clients, for a server that takes them in its own time; more than
# the sockets take stays out.
sub flood
{
	my ($proxy, $clients) = @_;
	my $bytes = encode('SET', 'flood', 'z' x 4000) x 40;
	my @clients = map { $proxy->client } 1 .. $clients;
	$_->socket->blocking(0), syswrite $_->socket, $bytes for @clients;
	$_->socket->blocking(1) for @clients;
	return @clients;
}

sub new
{
	my ($class, $port, %o) = @_;
	my $s = IO::Socket::INET->new(PeerAddr => $o{host} // '127.0.0.1', PeerPort => $port, Timeout => $EG::Test::TIMEOUT)
		// die "connect to $port: $!";
	setsockopt $s, IPPROTO_TCP, TCP_NODELAY, 1;
	binmode $s;
	return bless { s => $s, in => '' }, $class;
}

sub encode { return '*' . @_ . "\r\n" . join '', map { '$' . length($_) . "\r\n$_\r\n" } @_ }

sub raw
{
	my ($self, $bytes) = @_;
	while (length $bytes) {
		my $n = syswrite $self->{s}, $bytes;
		die "write: $!\n" if !defined $n;
		substr $bytes, 0, $n, '';
	}
	return;
}

sub put { my $self = shift; $self->raw(encode(@_)); return }
sub cmd { my $self = shift; $self->put(@_); return $self->get }
sub socket { return $_[0]{s} }
# What came and was not asked for by get().
sub unread { return $_[0]{in} }

sub fill
{
	my ($self) = @_;
	my $r = '';
	vec($r, fileno $self->{s}, 1) = 1;
	select($r, undef, undef, $EG::Test::TIMEOUT) or die "timeout waiting for a reply\n";
	my $n = sysread $self->{s}, $self->{in}, 65536, length $self->{in};
	die "connection closed\n" if !$n;
	return;
}

# True when the proxy closed the connection (after the replies that were read).
sub closed
{
	my ($self) = @_;
	return !eval { $self->fill while 1; 1 } && $@ =~ /closed/;
}

sub line
{
	my ($self) = @_;
	my $at;
	$self->fill while ($at = index $self->{in}, "\r\n") < 0;
	my $line = substr $self->{in}, 0, $at;
	substr $self->{in}, 0, $at + 2, '';
	return $line;
}

# One reply: strings and numbers as they are, nil as undef, arrays, maps and sets as array
# references, errors as Redis::Error, pushes as Redis::Push.
sub get
{
	my ($self) = @_;
	my $line = $self->line;
	my ($type, $rest) = (substr($line, 0, 1), substr $line, 1);
	return $rest if $type =~ /[+:,(#]/;
	return bless \$rest, 'Redis::Error' if $type eq '-';
	return undef if $type eq '_' || $rest eq '-1';
	if ($type =~ /[\$=!]/) {
		$self->fill while length $self->{in} < $rest + 2;
		my $value = substr $self->{in}, 0, $rest;
		substr $self->{in}, 0, $rest + 2, '';
		return $value;
	}
	die "no RESP: $line\n" if $type !~ /[*~%>]/;
	my @all = map { $self->get } 1 .. $rest * ($type eq '%' ? 2 : 1);
	return $type eq '>' ? bless \@all, 'Redis::Push' : \@all;
}

sub is_error { return ref $_[0] eq 'Redis::Error' ? ${ $_[0] } : undef }

package Redis::Process;
our @ISA = ('EG::Process');
sub redis_port { return $_[0]{redis_port} }
sub client { my ($self) = @_; return Redis->new($self->{redis_port}, host => $self->{redis_host}) }

sub metric
{
	my ($self, $name) = @_;
	my $text = EG::HTTP::http('GET', $self->url . '/metrics')->{body};
	return $text =~ /^\Q$name\E (\S+)$/m ? $1 : undef;
}

1;
