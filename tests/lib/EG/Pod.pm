package EG::Pod;

# hashd in front of real gatewayds in front of the fake provider, for tests of the whole.
#
#   my $pod = EG::Pod->new(gatewayds => 2, env => { PROVIDER => 'mock' });
#   my $r = $pod->embed('text', dimensions => 8);   # {json} is the decoded answer
#   $pod->openai->calls;  $pod->gatewayd(0)->kill9;  $pod->hashd->url;  $pod->restart;
#
# The provider's key is "sk-pod" unless headers say otherwise; the store lies in the test's directory.

use strict;
use warnings;
use EG::Test;

sub new
{
	my ($class, %o) = @_;
	my $n = $o{gatewayds} // 2;
	my $self = bless { n => $n, openai => $o{openai} // fake_openai() }, $class;
	my %env = (
		GATEWAYD_INSTANCES => $n, OPENAI_BASE_URL => $self->{openai}->base, STORE_DIR => test_path('cache'),
		%{ $o{env} // {} },
	);
	$self->{gatewayds} = [ map {
		daemon('gatewayd', http => 1, rpc => "gatewayd.$_.sock", allow => $o{allow}, env => { %env, GATEWAYD_INSTANCE => $_ })
	} 0 .. $n - 1 ];
	$self->{hashd} = daemon('hashd', http => 1, rpc => 'hashd.sock', env => \%env);
	return $self->wait_up;
}

sub openai { return $_[0]{openai} }
sub hashd { return $_[0]{hashd} }
sub gatewayd { my ($self, $i) = @_; return $self->{gatewayds}[$i] }
sub gatewayds { return @{ $_[0]{gatewayds} } }
sub url { return $_[0]{hashd}->url }

# Until hashd sees that many gatewayds (all).
sub wait_up
{
	my ($self, $n) = @_;
	$n //= $self->{n};
	wait_for { (() = http('GET', $self->url . '/metrics')->{body} =~ /^hashd_backend_up\{[^}]*\} 1$/mg) == $n } "$n gatewayd up";
	return $self;
}

# Stop everything but the provider, start it again; %env is added to the gatewayds' environment.
sub restart
{
	my ($self, %env) = @_;
	$_->stop for $self->{hashd}, $self->gatewayds;
	$_->start(env => { %{ $_->{env} }, %env }) for $self->gatewayds;
	$self->{hashd}->start;
	return $self->wait_up;
}

# Turns of the loop over 5 ms of processor time, without those that lost the processor meanwhile and those alone,
# over 20 ms, and the longest in ms, of each daemon since it started; hashd and the first gatewayd if none is named.
sub turns
{
	my ($self, @daemons) = @_;
	@daemons = ($self->hashd, $self->gatewayd(0)) if !@daemons;
	return map {
		my %m = http('GET', $_->url . '/metrics')->{body} =~ /^loop_(\w+(?:\{[^}]*\})?) (\S+)$/mg;
		{ long => $m{'long_turns_total{preempted="false"}'}, preempted => $m{'long_turns_total{preempted="true"}'},
			stuck => $m{stuck_turns_total}, ms => $m{turn_cpu_max_seconds} * 1000 };
	} @daemons;
}

sub embed
{
	my ($self, $input, %o) = @_;
	my $headers = delete $o{headers} // [ Authorization => 'Bearer sk-pod' ];
	return http_json($self->url . '/v1/embeddings', { model => 'text-embedding-3-small', input => $input, %o }, $headers);
}

1;
